//! PostgreSQL through a tunnel without an interface: behind it, and before it.
//!
//! ```text
//! clients ── hub (TUN) ══ tunnel ══ pod ── server on 127.0.0.1    (Expose)
//! server ─── hub (TUN) ══ tunnel ══ pod ── clients on 127.0.0.1   (Forward)
//! ```

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use rustix::process::{Pid, Signal, kill_process};

use super::net::{Host, Process, eventually, pause};
use super::pod::{PROGRAMS, Place, SOON, connect};
use super::skips;
use super::tunnel::End;
use super::tunnel::Program::{Hybridwg, WireguardGo};

/// How much of everything: a little, or with HYBRIDWG_LONG=1 what takes half an hour.
struct Measure {
    /// Of about 1000 bytes each.
    rows: u32,
    /// Connections that are kept and not used, and for how long.
    pool: usize,
    idle: Duration,
}

impl Measure {
    fn new() -> Self {
        if std::env::var_os("HYBRIDWG_LONG").is_some_and(|value| value == "1") {
            Self { rows: 101_000, pool: 1000, idle: Duration::from_secs(600) }
        } else {
            Self { rows: 20_000, pool: 50, idle: Duration::from_secs(10) }
        }
    }
}

/// Connections for everything else, and those that PostgreSQL reserves.
const OTHERS: usize = 20;

/// Where the newest PostgreSQL has its server; says that the test is skipped if it cannot be run.
fn postgres() -> Option<PathBuf> {
    if skips(PROGRAMS) || skips(&["psql", "pgbench", "wireguard-go"]) {
        return None;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let newest = folders.filter(|folder| folder.join("initdb").exists()).max();
    if newest.is_none() {
        super::skip("no server of PostgreSQL");
    }
    newest
}

/// A server, and its clients' way to it.
struct Database<'p> {
    place: &'p Place,
    measure: Measure,
    programs: PathBuf,
    /// Where the server runs, and the one of its addresses where it listens.
    at: (&'p Host, &'static str),
    /// Where clients run, and what they connect to.
    from: (&'p Host, &'static str),
}

impl Database<'_> {
    fn data(&self) -> PathBuf {
        self.place.folder.path().join("data")
    }

    /// Only `client` is let in.
    fn create(&self, client: &str) {
        let mut initdb = self.place.plain(self.programs.join("initdb").to_str().unwrap());
        initdb.args(["-U", "postgres", "--auth=reject", "-N", "-D"]).arg(self.data());
        let made = self.at.0.output(initdb);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let rules = format!("host all all {client}/32 trust\n");
        fs::write(self.data().join("pg_hba.conf"), rules).unwrap();
    }

    /// Runs the server. It looks every second whether idle clients are still there.
    fn serve(&self) -> Process {
        let mut server = self.place.plain(self.programs.join("postgres").to_str().unwrap());
        server.arg("-D").arg(self.data());
        for setting in [
            format!("listen_addresses={}", self.at.1),
            format!("max_connections={}", self.measure.pool + OTHERS),
            "unix_socket_directories=".to_owned(),
            "fsync=off".to_owned(),
            "tcp_keepalives_idle=1".to_owned(),
            "tcp_keepalives_interval=1".to_owned(),
            "tcp_keepalives_count=8".to_owned(),
        ] {
            server.args(["-c", &setting]);
        }
        let mut server = self.at.0.spawn(server);
        eventually("the database answers", SOON, || {
            assert!(server.is_alive(), "{}", server.log());
            self.sql(&["SELECT 1"]).status.success()
        });
        server
    }

    fn sql(&self, commands: &[&str]) -> Output {
        let mut psql = Command::new("psql");
        let (host, port) = self.from.1.split_once(':').unwrap();
        psql.args(["-qAtX", "-h", host, "-p", port, "-U", "postgres", "-v", "ON_ERROR_STOP=1"]);
        psql.env("PGSSLMODE", "disable");
        commands.iter().for_each(|command| {
            psql.args(["-c", command]);
        });
        self.from.0.output(psql)
    }

    #[track_caller]
    fn expect(&self, commands: &[&str]) {
        let done = self.sql(commands);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn session(&self) -> io::Result<Session> {
        Session::open(connect(self.from.0, self.from.1)?)
    }

    fn is_benchmarked(&self) {
        let (host, port) = self.from.1.split_once(':').unwrap();
        let pgbench = format!("pgbench -h {host} -p {port} -U postgres");
        self.from.0.sh(&format!("{pgbench} -i -q -s 1 postgres"));
        for (how, all) in [("-S -c 4 -t 100", "400/400"), ("-c 4 -t 25", "100/100")] {
            let told = self.from.0.sh(&format!("{pgbench} -n {how} postgres"));
            assert!(told.contains(all), "{told}");
        }
    }

    /// What is copied is compared with what the server itself has in its files.
    fn is_copied_both_ways(&self) {
        let folder = self.place.folder.path();
        let path = |name: &str| folder.join(name).display().to_string();
        let count = self.measure.rows;
        let rows = format!("SELECT n, repeat(md5(n::text), 31) FROM generate_series(1, {count}) n");
        self.expect(&[
            "CREATE TABLE copied (n int, text text)",
            &format!("COPY ({rows}) TO '{}'", path("served")),
            &format!("\\copy ({rows}) TO '{}'", path("out")),
            &format!("\\copy copied FROM '{}'", path("out")),
            &format!("COPY (SELECT * FROM copied ORDER BY n) TO '{}'", path("stored")),
        ]);
        let [served, out, stored] =
            ["served", "out", "stored"].map(|name| fs::read(folder.join(name)).unwrap());
        assert!(served.len() > 990 * usize::try_from(count).unwrap(), "{} bytes", served.len());
        assert!(out == served, "out: {} of {} bytes", out.len(), served.len());
        assert!(stored == served, "in: {} of {} bytes", stored.len(), served.len());
    }

    /// A client that says at once what it wants and that it is all gets the whole answer.
    fn answers_who_has_ended(&self) {
        let mut session = self.session().unwrap();
        session.say("SELECT repeat('x', 1000000)").unwrap();
        session.stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        session.stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.iter().filter(|&&byte| byte == b'x').count(), 1_000_000);
        assert!(heard.windows(9).any(|nine| nine == b"SELECT 1\0"), "complete");
    }

    /// Sessions end with the server, are told so, and are to be had again with it.
    fn is_restarted(&self, server: Process) -> Process {
        let mut session = self.session().unwrap();
        kill_process(Pid::from_raw(server.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
        let mut heard = Vec::new();
        session.stream.read_to_end(&mut heard).unwrap();
        let told = String::from_utf8_lossy(&heard).into_owned();
        assert!(told.contains("57P01"), "an administrator's command: {told}");
        drop(server);
        assert!(self.session().is_err(), "nobody is there");
        self.serve()
    }

    /// The whole of it, but for the restart of the tunnel's other end.
    fn is_used(&self) -> Process {
        let server = self.serve();
        let mut pool: Vec<Session> =
            (0..self.measure.pool).map(|_| self.session().unwrap()).collect();
        self.is_benchmarked();
        self.is_copied_both_ways();
        self.answers_who_has_ended();
        // Whoever does not answer for nine seconds has ended.
        pause(self.measure.idle);
        for session in &mut pool {
            assert_eq!(session.ask("SELECT 40 + 2").unwrap(), "42");
        }
        drop(pool);
        self.is_restarted(server)
    }
}

/// One connection, as a pool keeps it. [PostgreSQL 15, chapter 55]
struct Session {
    stream: TcpStream,
}

impl Session {
    fn open(stream: TcpStream) -> io::Result<Self> {
        set_socket_keepalive(&stream, true)?;
        set_tcp_keepidle(&stream, Duration::from_secs(1))?;
        set_tcp_keepintvl(&stream, Duration::from_secs(1))?;
        set_tcp_keepcnt(&stream, 8)?;
        let mut session = Self { stream };
        session.send(&[], b"\0\x03\0\0user\0postgres\0database\0postgres\0\0")?;
        session.until_ready()?;
        Ok(session)
    }

    /// A message: its kind, its length with these four bytes, its content.
    fn send(&mut self, kind: &[u8], content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(4 + content.len()).unwrap();
        self.stream.write_all(&[kind, &length.to_be_bytes(), content].concat())
    }

    fn say(&mut self, query: &str) -> io::Result<()> {
        self.send(b"Q", format!("{query}\0").as_bytes())
    }

    fn ask(&mut self, query: &str) -> io::Result<String> {
        self.say(query)?;
        self.until_ready()
    }

    /// Reads up to ReadyForQuery; returns the only value of the last DataRow.
    fn until_ready(&mut self) -> io::Result<String> {
        let mut value = String::new();
        loop {
            let mut head = [0; 5];
            self.stream.read_exact(&mut head)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
            let mut content = vec![0; usize::try_from(length - 4).unwrap()];
            self.stream.read_exact(&mut content)?;
            match head[0] {
                b'Z' => return Ok(value),
                // Behind the number of columns and the length of the first.
                b'D' => value = String::from_utf8_lossy(&content[6..]).into_owned(),
                b'E' => return Err(io::Error::other(content.escape_ascii().to_string())),
                _ => {}
            }
        }
    }
}

#[test]
fn a_database_behind_it_is_used_by_peers() {
    let Some(programs) = postgres() else { return };
    let Some(place) = Place::confined() else { return };
    let at = (&place.pod, "127.0.0.1");
    let database = Database {
        place: &place,
        measure: Measure::new(),
        programs,
        at,
        from: (&place.hub, "10.66.0.2:5432"),
    };
    // Only who comes through the tunnel has this address.
    database.create("127.77.0.1");
    let mut hub = place.join(WireguardGo);
    let lines = "#hybridwg: Expose = 5432 127.0.0.1:5432 source=127.77.0.1";
    let _pod = place.up(&hub, lines);
    let _server = database.is_used();
    // The other end starts anew, with other sessions: who asks again is served again.
    hub = place.rejoin(hub);
    database.expect(&["SELECT 1"]);
    drop(hub);
}

#[test]
fn a_database_beyond_it_is_used_by_programs_beside_it() {
    let Some(programs) = postgres() else { return };
    let Some(place) = Place::confined() else { return };
    let mut hub: End<'_> = place.join(Hybridwg);
    let at = (&place.hub, "10.66.0.1");
    let database = Database {
        place: &place,
        measure: Measure::new(),
        programs,
        at,
        from: (&place.pod, "127.0.0.1:15432"),
    };
    database.create("10.66.0.2");
    let _pod = place.up(&hub, "#hybridwg: Forward = 127.0.0.1:15432 10.66.0.1:5432");
    let _server = database.is_used();
    hub = place.rejoin(hub);
    database.expect(&["SELECT 1"]);
    drop(hub);
}
