//! A tunnel without an interface, of a user who may do nothing: what peers reach at its addresses.
//!
//! ```text
//! hub (TUN) ══ tunnel ══ pod: uid 65534, no capability ── services on 127.0.0.1
//! ```

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::net::{Host, Process, eventually, unique};
use super::tunnel::Program::{self, Hybridwg, WireguardGo};
use super::tunnel::{End, Keys};
use super::{copy_binary, skips};

/// What must come comes by then, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);

const PROGRAMS: &[&str] = &["ip", "ping", "setpriv", "wg"];

/// The user that containers run as who have no other.
const NOBODY: u32 = 65534;

/// Both ends' hosts, and the pod's files.
struct Place {
    hub: Host,
    pod: Host,
    folder: TempDir,
    interface: String,
    keys: Keys,
}

impl Place {
    fn new() -> Self {
        let (hub, pod) = (Host::new(), Host::new());
        hub.wire("192.168.7.1/24", &pod, "192.168.7.2/24");
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        copy_binary(&folder.path().join("hybridwg"));
        let run = folder.path().join("run");
        fs::create_dir(&run).unwrap();
        chown(run, Some(NOBODY), Some(NOBODY)).unwrap();
        let keys = Keys::generate(&hub);
        Self { hub, pod, folder, interface: unique("r"), keys }
    }

    /// The other end, an interface of `program`'s.
    fn join(&self, program: Program) -> End<'_> {
        let hub = End::start(&self.hub, program);
        hub.setconf(&format!(
            "[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.2/32, fd66::2/128",
            self.keys.public
        ));
        hub.up("10.66.0.1/24 10.66.0.9/24 fd66::1/64");
        hub
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.conf", self.interface))
    }

    fn write(&self, hub: &End<'_>, lines: &str) {
        let text = format!(
            "[Interface]\nPrivateKey = {}\nAddress = 10.66.0.2/24, fd66::2/64\n{lines}\n[Peer]\n\
             PublicKey = {}\nEndpoint = 192.168.7.1:{}\nAllowedIPs = 10.66.0.0/24, fd66::/64\n\
             PersistentKeepalive = 1\n",
            self.keys.private,
            hub.keys.public,
            hub.port()
        );
        fs::write(self.path(), text).unwrap();
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o600)).unwrap();
        chown(self.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }

    /// A program of the pod's, with no right at all.
    fn plain(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"])
            .args(["--inh-caps=-all", "--no-new-privs", program])
            .current_dir(self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path().join("run"))
            .env("STATE_DIRECTORY", "");
        command
    }

    fn command(&self, words: &[&str]) -> Command {
        let binary = self.folder.path().join("hybridwg");
        let mut command = self.plain(binary.to_str().unwrap());
        command.args(words);
        command
    }

    fn hybridwg(&self, words: &[&str]) -> Output {
        self.pod.output(self.command(words))
    }

    /// Brings the tunnel up with what `lines` say, in the foreground.
    fn up(&self, hub: &End<'_>, lines: &str) -> Process {
        self.write(hub, lines);
        let file = self.path();
        self.start(self.command(&["up", "--foreground", file.to_str().unwrap()]))
    }

    /// Has `command` bring it up.
    fn start(&self, command: Command) -> Process {
        let mut process = self.pod.spawn(command);
        eventually("the pod answers a ping", SOON, || {
            assert!(process.is_alive(), "{}", process.log());
            self.hub.pings("10.66.0.2")
        });
        process
    }
}

/// Has the service behind `socket` send back what comes.
fn echo_datagrams(socket: UdpSocket) {
    thread::spawn(move || {
        let mut room = [0; 65536];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            socket.send_to(&room[..len], from).unwrap();
        }
    });
}

/// What comes back for a datagram of so many bytes.
fn ask_by_datagram(host: &Host, to: &str, len: usize) -> std::io::Result<Vec<u8>> {
    let any = if to.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
    let client = host.run(|| UdpSocket::bind(any))?;
    client.set_read_timeout(Some(SOON))?;
    client.connect(to)?;
    client.send(&pattern(len))?;
    let mut room = vec![0; 65536];
    client.recv(&mut room).map(|len| room[..len].to_vec())
}

fn connect(host: &Host, place: &str) -> std::io::Result<TcpStream> {
    let place: SocketAddr = place.parse().unwrap();
    let stream = host.run(|| TcpStream::connect_timeout(&place, SOON))?;
    stream.set_read_timeout(Some(SOON))?;
    stream.set_write_timeout(Some(SOON))?;
    Ok(stream)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 31 + n / 251) as u8).collect()
}

/// Says everything back when it has heard the end, and first from where it was called.
fn echo_at_the_end(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).unwrap();
                let from = stream.peer_addr().unwrap().ip().to_string();
                stream.write_all(from.as_bytes()).and_then(|()| stream.write_all(&heard)).unwrap();
            });
        }
    });
}

fn ask(host: &Host, place: &str, what: &[u8]) -> Vec<u8> {
    let mut stream = connect(host, place).unwrap();
    stream.write_all(what).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn peers_reach_what_is_exposed_to_them_and_find_the_other_ports_closed() {
    for program in [Hybridwg, WireguardGo] {
        if skips(PROGRAMS) || (program == WireguardGo && skips(&["wireguard-go"])) {
            return;
        }
        let place = Place::new();
        let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let port = service.local_addr().unwrap().port();
        echo_at_the_end(service);
        let hub = place.join(program);
        let lines = format!(
            "#hybridwg: Expose = 5432 127.0.0.1:{port} source=127.77.0.1\n\
             #hybridwg: Expose = 81 127.0.0.1:{port} from=10.66.0.9/32\n\
             #hybridwg: Expose = 82 127.0.0.1:1"
        );
        let _pod = place.up(&hub, &lines);
        for own in ["10.66.0.2", "[fd66::2]"] {
            let sent = pattern(1 << 20);
            let answer = ask(&place.hub, &format!("{own}:5432"), &sent);
            assert!(answer.starts_with(b"127.77.0.1"), "the source of the file");
            assert!(answer[b"127.77.0.1".len()..] == sent, "{own}: half-closed, and whole");
        }
        // Who is not meant finds the port as closed as one that leads nowhere, or to nobody.
        for closed in ["10.66.0.2:81", "10.66.0.2:82", "10.66.0.2:83", "[fd66::2]:83"] {
            let refused = connect(&place.hub, closed).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{closed}");
        }
    }
}

#[test]
fn datagrams_unix_sockets_and_who_is_calling_get_through() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let names = place.pod.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = names.local_addr().unwrap().port();
    echo_datagrams(names);
    let socket = place.folder.path().join("app.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let hub = place.join(Hybridwg);
    let lines = format!(
        "#hybridwg: Expose = 53/udp 127.0.0.1:{port}\n\
         #hybridwg: Expose = 80 unix:{} proxy=v2\n#hybridwg: Expose = 54/udp 127.0.0.1:1",
        socket.display()
    );
    let _pod = place.up(&hub, &lines);
    let ask = |to: &str, len: usize| ask_by_datagram(&place.hub, to, len);
    for own in ["10.66.0.2:53", "[fd66::2]:53"] {
        for len in [1, 1200, 20_000] {
            assert!(ask(own, len).unwrap() == pattern(len), "{own}, {len} bytes");
        }
    }
    for closed in ["10.66.0.2:54", "10.66.0.2:55", "[fd66::2]:55"] {
        assert_eq!(ask(closed, 9).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{closed}");
    }

    let mut client = connect(&place.hub, "10.66.0.2:80").unwrap();
    client.write_all(b"hello").unwrap();
    let (mut called, _) = listener.accept().unwrap();
    let mut head = [0; 28 + 5];
    called.read_exact(&mut head).unwrap();
    assert_eq!(head[..14], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    assert_eq!(head[16..24], [10, 66, 0, 1, 10, 66, 0, 2]);
    assert_eq!(head[26..], [0, 80, b'h', b'e', b'l', b'l', b'o']);
    // The service ends first, and the client goes on.
    called.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    client.write_all(b"more").unwrap();
    drop(client);
    let mut more = String::new();
    called.read_to_string(&mut more).unwrap();
    assert_eq!(more, "more");
}

#[test]
fn a_reload_exposes_anew_and_the_end_waits_for_flows_and_leaves_nothing() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = service.local_addr().unwrap().port();
    echo_at_the_end(service);
    let hub = place.join(Hybridwg);
    let mut pod = place.up(&hub, &format!("#hybridwg: Expose = 80 127.0.0.1:{port}"));
    let file = place.path();
    let file = file.to_str().unwrap();
    let shown = place.hybridwg(&["show", &place.interface]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("mode: rootless (0 flows)"), "{shown}");
    let again = place.hybridwg(&["up", file]);
    assert!(!again.status.success(), "it is up");

    place.write(&hub, &format!("#hybridwg: Expose = 90 127.0.0.1:{port}"));
    let reloaded = place.hybridwg(&["reload", file]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert_eq!(ask(&place.hub, "10.66.0.2:90", b"x"), b"127.0.0.1x");
    assert!(connect(&place.hub, "10.66.0.2:80").is_err());

    let mut open = connect(&place.hub, "10.66.0.2:90").unwrap();
    pod.terminate();
    eventually("nobody gets in any more", SOON, || connect(&place.hub, "10.66.0.2:90").is_err());
    open.write_all(b"still here").unwrap();
    open.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    open.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"127.0.0.1still here");
    eventually("it has ended", SOON, || !pod.is_alive());
    let left = fs::read_dir(place.folder.path().join("run/hybridwg")).unwrap().count();
    assert_eq!(left, 0, "{}", pod.log());
}

#[test]
fn where_a_name_leads_is_judged_by_the_rules_though_nothing_is_masqueraded() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = service.local_addr().unwrap().port();
    echo_at_the_end(service);
    let hub = place.join(Hybridwg);
    let lines = |rules: &str| {
        format!(
            "#hybridwg: Expose = 80 localhost:{port}\n#hybridwg: AllowTo = 127.0.0.0/8\n{rules}"
        )
    };
    let _pod = place.up(&hub, &lines(""));
    let is_open = || connect(&place.hub, "10.66.0.2:80").is_ok();
    eventually("the name is looked up, and allowed", SOON, is_open);
    let mut open = connect(&place.hub, "10.66.0.2:80").unwrap();
    place.write(&hub, &lines("#hybridwg: DenyTo = 127.0.0.1:1-65535/tcp"));
    let reloaded = place.hybridwg(&["reload", place.path().to_str().unwrap()]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    open.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(open.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(!is_open());
}

#[test]
fn what_is_exposed_is_found_beside_an_interface_too_and_the_kernel_has_the_other_ports() {
    if skips(PROGRAMS) {
        return;
    }
    for shards in ["1", "2"] {
        let place = Place::new();
        let [service, all, other] = ["127.0.0.1:0", "0.0.0.0:80", "0.0.0.0:81"]
            .map(|at| place.pod.run(|| TcpListener::bind(at).unwrap()));
        let names = place.pod.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
        let (port, names_port) =
            (service.local_addr().unwrap().port(), names.local_addr().unwrap().port());
        echo_at_the_end(service);
        echo_at_the_end(other);
        echo_datagrams(names);
        let hub = place.join(Hybridwg);
        let lines = format!(
            "#hybridwg: Expose = 80 127.0.0.1:{port} from=10.66.0.1/32 source=127.77.0.1\n\
             #hybridwg: Expose = 80 127.0.0.1:{port} from=fd66::/64\n\
             #hybridwg: Expose = 82 127.0.0.1:{port} from=10.66.0.9/32\n\
             #hybridwg: Expose = 53/udp 127.0.0.1:{names_port}"
        );
        place.write(&hub, &lines);
        let file = place.path();
        let run = |words: &[&str]| {
            let mut command = Command::new(place.folder.path().join("hybridwg"));
            command.args(words).arg(&file);
            command
        };
        let mut pod = place.start(run(&["up", "--foreground", "--shards", shards]));
        for (own, source) in [("10.66.0.2", "127.77.0.1"), ("[fd66::2]", "127.0.0.1")] {
            let sent = pattern(1 << 20);
            let answer = ask(&place.hub, &format!("{own}:80"), &sent);
            assert!(answer.starts_with(source.as_bytes()) && answer[source.len()..] == sent);
            assert_eq!(
                ask_by_datagram(&place.hub, &format!("{own}:53"), 1200).unwrap(),
                pattern(1200)
            );
            let refused = connect(&place.hub, &format!("{own}:82")).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        }
        assert!(ask(&place.hub, "10.66.0.2:81", b"x").starts_with(b"10.66.0.1"), "the kernel's");
        // Who listens at all addresses has the port again when it is exposed no more.
        all.set_nonblocking(true).unwrap();
        assert_eq!(all.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        place.write(&hub, "");
        let reloaded = place.pod.output(run(&["reload"]));
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
        let _kernels = connect(&place.hub, "10.66.0.2:80").unwrap();
        all.set_nonblocking(false).unwrap();
        all.accept().unwrap();
        pod.terminate();
        eventually("it has ended", SOON, || !pod.is_alive());
    }
}

#[test]
fn as_process_1_it_waits_for_orphans_and_for_flows_but_not_longer_than_it_may() {
    if skips(PROGRAMS) || skips(&["unshare", "nsenter", "sh", "sleep"]) {
        return;
    }
    let place = Place::new();
    let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = service.local_addr().unwrap().port();
    echo_at_the_end(service);
    let hub = place.join(Hybridwg);
    let children = |process: i32| {
        let told = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
        told.split_whitespace().map(|it| it.parse().unwrap()).collect::<Vec<i32>>()
    };
    for (grace, ends_by_itself) in [("600", true), ("1", false)] {
        place.write(&hub, &format!("#hybridwg: Expose = 80 127.0.0.1:{port}"));
        let file = place.path();
        let words = ["up", "--foreground", "--grace", grace, file.to_str().unwrap()];
        let inside = place.command(&words);
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child"]).arg(inside.get_program());
        command.args(inside.get_args()).current_dir(place.folder.path());
        command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut outside = place.start(command);
        let first = children(outside.id().cast_signed())[0];

        // Its mother ends, and leaves it to process 1.
        let target = first.to_string();
        let nsenter = ["--target", &target, "--pid", "sh", "-c", "sleep 600 >&- 2>&- & true"];
        let mut mother = Command::new("nsenter");
        mother.args(nsenter);
        assert!(place.pod.output(mother).status.success());
        let is_orphan = |process: &i32| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            name == "sleep\n"
        };
        let orphan = children(first).into_iter().find(is_orphan).unwrap();
        kill_process(Pid::from_raw(orphan).unwrap(), Signal::KILL).unwrap();
        eventually("nothing is left of it", SOON, || !children(first).contains(&orphan));

        let mut open = connect(&place.hub, "10.66.0.2:80").unwrap();
        open.set_read_timeout(Some(SOON)).unwrap();
        kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
        eventually("nobody gets in any more", SOON, || {
            connect(&place.hub, "10.66.0.2:80").is_err()
        });
        if ends_by_itself {
            open.write_all(b"still here").unwrap();
            open.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            open.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"127.0.0.1still here");
        }
        eventually("it has ended", SOON, || !outside.is_alive());
        assert!(place.hybridwg(&["show", &place.interface]).stdout.is_empty());
    }
}

#[test]
fn hooks_are_refused_where_there_is_no_interface_unless_they_are_allowed() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let hub = place.join(Hybridwg);
    place.write(&hub, "PostUp = touch up-%i\nPostDown = touch down-%i\n#hybridwg: Mode = rootless");
    let file = place.path();
    let file = file.to_str().unwrap();
    let refused = place.hybridwg(&["up", file]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("--allow-hooks"), "{told}");
    let made =
        |what: &str| place.folder.path().join(format!("{what}-{}", place.interface)).exists();
    assert!(!made("up"));
    assert!(place.hybridwg(&["up", "--allow-hooks", file]).status.success());
    assert!(made("up"));
    let down = place.hybridwg(&["down", file]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(made("down"));
}

#[test]
fn a_database_behind_it_is_used_and_copied_both_ways() {
    if skips(&["ip", "ping", "setpriv", "wg", "psql", "pgbench"]) {
        return;
    }
    let Some(programs) = postgres() else { return super::skip("no server of PostgreSQL") };
    let place = Place::new();
    let data = place.folder.path().join("data");
    let initdb = programs.join("initdb");
    let mut initdb = place.plain(initdb.to_str().unwrap());
    initdb.args(["-U", "postgres", "--auth=reject", "-N", "-D"]).arg(&data);
    let made = place.pod.output(initdb);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    // Only who comes through the tunnel has this address.
    fs::write(data.join("pg_hba.conf"), "host all all 127.77.0.1/32 trust\n").unwrap();
    let server = programs.join("postgres");
    let mut server = place.plain(server.to_str().unwrap());
    server.arg("-D").arg(&data).args(["-c", "unix_socket_directories="]);
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "port=5433", "-c", "fsync=off"]);
    let mut server = place.pod.spawn(server);

    let mut hub = place.join(Hybridwg);
    let lines = "#hybridwg: Expose = 5432 127.0.0.1:5433 source=127.77.0.1";
    let _pod = place.up(&hub, lines);
    const DATABASE: &str = "host=10.66.0.2 user=postgres dbname=postgres sslmode=disable";
    let sql = |words: &[&str]| {
        let mut psql = Command::new("psql");
        psql.args(["-qAtX", "-d", DATABASE, "-v", "ON_ERROR_STOP=1"]).args(words);
        place.hub.output(psql)
    };
    eventually("the database answers", SOON, || {
        assert!(server.is_alive(), "{}", server.log());
        sql(&["-c", "SELECT 1"]).status.success()
    });
    place.hub.sh("pgbench -h 10.66.0.2 -U postgres -i -q -s 1 postgres");
    let told = place.hub.sh("pgbench -h 10.66.0.2 -U postgres -n -S -c 4 -t 100 postgres");
    assert!(told.contains("400/400"), "{told}");

    let rows = "SELECT n, md5(n::text) FROM generate_series(1, 200000) n ORDER BY n";
    let copy = format!("COPY ({rows}) TO STDOUT");
    let copied = sql(&["-c", &copy]);
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(copied.stdout.iter().filter(|byte| **byte == b'\n').count(), 200_000);
    let file = place.folder.path().join("copied");
    fs::write(&file, &copied.stdout).unwrap();
    let script = format!(
        "CREATE TABLE t (n int, m text); \\copy t FROM '{}'\n\
         SELECT count(*), bool_and(m = md5(n::text)) FROM t",
        file.display()
    );
    let (table, rest) = script.split_once(" \\").unwrap();
    let (copy, check) = rest.split_once('\n').unwrap();
    let back = sql(&["-c", table, "-c", &format!("\\{copy}"), "-c", check]);
    let told = String::from_utf8_lossy(&back.stdout).into_owned();
    assert_eq!(told.trim(), "200000|t", "{}", String::from_utf8_lossy(&back.stderr));

    // The other end starts anew, with other sessions: who asks again is served again.
    hub = hub.restart();
    hub.setconf(&format!(
        "[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.2/32\nEndpoint = 192.168.7.2:{}",
        place.keys.public,
        port_of(&place)
    ));
    hub.up("10.66.0.1/24");
    eventually("the database answers again", SOON, || sql(&["-c", "SELECT 1"]).status.success());
}

/// The port that the pod listens on.
fn port_of(place: &Place) -> u16 {
    let shown = place.hybridwg(&["show", &place.interface, "listen-port"]);
    String::from_utf8_lossy(&shown.stdout).trim().parse().unwrap()
}

/// Where the newest PostgreSQL has its server.
fn postgres() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    folders.filter(|folder| folder.join("initdb").exists()).max()
}
