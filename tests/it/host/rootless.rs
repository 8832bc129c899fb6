//! A tunnel without an interface, of a user who may do nothing: what peers reach at its addresses.
//!
//! ```text
//! hub (TUN) ══ tunnel ══ pod: uid 65534, no capability ── services on 127.0.0.1
//! ```

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::net::{Host, eventually};
use super::pod::{
    PROGRAMS, Place, SOON, ask, ask_by_datagram, connect, echo_at_the_end, echo_datagrams, pages,
    pattern, shown,
};
use super::skips;
use super::tunnel::End;
use super::tunnel::Program::{Hybridwg, WireguardGo};

/// A name, not an address, which the resolver takes for 127.0.0.1 without asking anybody.
const NAME: &str = "0x7f.1";

/// What is not to come does not come by then.
const NOTHING: Duration = Duration::from_millis(300);

#[test]
fn peers_reach_what_is_exposed_to_them_and_find_the_other_ports_closed() {
    for program in [Hybridwg, WireguardGo] {
        if skips(PROGRAMS) || (program == WireguardGo && skips(&["wireguard-go"])) {
            return;
        }
        let place = Place::new();
        let port = place.echo();
        let hub = place.join(program);
        let lines = format!(
            "#hybridwg: Expose = 5432 127.0.0.1:{port} source=127.77.0.1\n\
             #hybridwg: Expose = 81 127.0.0.1:{port} from=10.66.0.9/32\n\
             #hybridwg: Expose = 82 127.0.0.1:1\n\
             #hybridwg: Expose = 84 localhost:{port}"
        );
        let _pod = place.up(&hub, &lines);
        assert_eq!(ask(&place.hub, "10.66.0.2:84", b"x"), b"127.0.0.1x", "no name to look up");
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
    let port = place.echo();
    let hub = place.join(Hybridwg);
    let mut pod = place.up(&hub, &format!("#hybridwg: Expose = 80 127.0.0.1:{port}"));
    let file = place.path();
    let file = file.to_str().unwrap();
    let shown = place.hybridwg(&["show", &place.interface]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("\n  mode: rootless\n  flows: 0\n"), "{shown}");
    let again = place.hybridwg(&["up", file]);
    assert!(!again.status.success(), "it is up");

    place.write(&hub, &format!("#hybridwg: Expose = 90 127.0.0.1:{port}"));
    place.reload();
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
    let port = place.echo();
    let hub = place.join(Hybridwg);
    let lines = |rules: &str| {
        format!("#hybridwg: Expose = 80 {NAME}:{port}\n#hybridwg: AllowTo = 127.0.0.0/8\n{rules}")
    };
    let _pod = place.up(&hub, &lines(""));
    let is_open = || connect(&place.hub, "10.66.0.2:80").is_ok();
    eventually("the name is looked up, and allowed", SOON, is_open);
    let mut open = connect(&place.hub, "10.66.0.2:80").unwrap();
    place.write(&hub, &lines("#hybridwg: DenyTo = 127.0.0.1:1-65535/tcp"));
    place.reload();
    open.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(open.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(!is_open());
}

#[test]
fn a_name_that_leads_where_peers_may_not_go_is_told_once_with_the_rule_and_what_helps() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let port = place.echo();
    let hub = place.join(Hybridwg);
    let first = format!("#hybridwg: Expose = 80 {NAME}:{port}");
    place.write(&hub, &first);
    let mut command = place.command(&["up", "--foreground", place.path().to_str().unwrap()]);
    command.env("LOG_LEVEL", "warn");
    let mut pod = place.start(command);
    let count = |log: &str, exposed: u16, why: &str| {
        let line = format!(
            "`Expose = {exposed} {NAME}:{port}` leads nowhere: peers may not go to 127.0.0.1 ({why})"
        );
        log.matches(&line).count()
    };
    let mut soon = |exposed, why| {
        eventually("it is told", SOON, || count(&pod.log(), exposed, why) == 1);
    };
    soon(80, "a loopback address");
    // Looked up, and judged, together with the first.
    let second = format!("{first}\n#hybridwg: Expose = 81 {NAME}:{port}");
    place.write(&hub, &second);
    place.reload();
    soon(81, "a loopback address");
    place.write(&hub, &format!("{second}\n#hybridwg: DenyTo = 127.0.0.0/8"));
    place.reload();
    for exposed in [80, 81] {
        soon(exposed, "`DenyTo = 127.0.0.0/8` names it");
    }
    place.write(&hub, &format!("{second}\n#hybridwg: AllowTo = 127.0.0.1:{port}/tcp"));
    place.reload();
    eventually("what was told helps", SOON, || connect(&place.hub, "10.66.0.2:80").is_ok());
    assert!(pod.log().contains(&format!("Write `AllowTo = 127.0.0.1:{port}/tcp`, after")));
    assert_eq!(pod.log().matches("leads nowhere").count(), 4);
}

#[test]
fn as_many_flows_as_there_may_be_are_told_as_such_and_what_is_dropped_then_is_counted() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let port = place.echo();
    let hub = place.join(Hybridwg);
    let behind = place.hub.run(|| TcpListener::bind("10.66.0.1:7").unwrap());
    let lines = format!(
        "#hybridwg: Expose = 80 127.0.0.1:{port}\n#hybridwg: MaxFlows = 4\n\
         #hybridwg: Forward = 127.0.0.1:11001 10.66.0.1:7"
    );
    let _pod = place.up(&hub, &lines);
    let told = || shown(&place.hybridwg(&["show", &place.interface, "--json"]));
    let dropped = || told()["drops"]["flow_limit"].as_u64().unwrap_or(0);
    let is_full = || told()["flows_full"].as_bool().unwrap();
    assert!(!is_full());
    let mut open: Vec<_> = (0..4).map(|_| connect(&place.hub, "10.66.0.2:80").unwrap()).collect();
    assert!(is_full() && dropped() == 0, "{}", told());
    let shown = place.hybridwg(&["show", &place.interface]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("\n  flows: 4 (no more may begin)\n"), "{shown}");

    // Neither a program of the pod gets one more, nor a peer, whose packet is not answered.
    let refused = connect(&place.pod, "127.0.0.1:11001").unwrap().read(&mut [0; 1]);
    assert!(refused.is_ok_and(|len| len == 0));
    assert_eq!(dropped(), 1);
    let waiting =
        place.hub.run(|| TcpStream::connect_timeout(&"10.66.0.2:80".parse().unwrap(), NOTHING));
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::TimedOut);
    eventually("it is counted", SOON, || dropped() > 1);

    drop(open.pop());
    eventually("one has ended", SOON, || !is_full());
    let _fourth = connect(&place.pod, "127.0.0.1:11001").unwrap();
    behind.accept().unwrap();
    assert!(is_full());
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
fn from_holds_beside_an_interface_by_whichever_address_and_whatever_passes_by_is_let_through() {
    if skips(PROGRAMS) || skips(&["curl"]) {
        return;
    }
    let place = Place::new();
    let hub = place.join(Hybridwg);
    hub.set(&format!(
        "peer {} allowed-ips 10.66.0.2/32,fd66::2/128,203.0.113.0/29,2001:db8::5/128,192.168.8.0/24",
        place.keys.public
    ));
    for network in ["203.0.113.0/29", "2001:db8::5/128", "192.168.8.0/24"] {
        place.hub.sh(&format!("ip route add {network} dev {}", hub.interface));
    }
    for address in ["203.0.113.5/32", "2001:db8::5/128"] {
        place.pod.sh(&format!("ip address add {address} dev lo"));
    }
    // Behind the pod, which forwards, on the same port.
    let behind = Host::new();
    behind.wire("192.168.8.1/24", &place.pod, "192.168.8.2/24");
    behind.sh("ip route add default via 192.168.8.2");
    place.pod.forward();
    let listeners = [(&place.pod, "[::]:5432"), (&place.pod, "[::]:5433"), (&behind, "[::]:5432")];
    for (host, at) in listeners {
        echo_at_the_end(host.run(|| TcpListener::bind(at).unwrap()));
    }
    let [names, other] =
        ["[::]:53", "[::]:54"].map(|at| place.pod.run(|| UdpSocket::bind(at).unwrap()));
    other.set_read_timeout(Some(SOON)).unwrap();
    let page = place.hub.run(|| TcpListener::bind("10.66.0.1:0").unwrap());
    let page_port = page.local_addr().unwrap().port();
    pages(page);
    let lines = [5432, 5434]
        .map(|port| format!("#hybridwg: Expose = {port} 127.0.0.1:1 from=10.66.0.9/32\n"));
    place.write(&hub, &format!("{}#hybridwg: Expose = 53/udp 127.0.0.1:1", lines.concat()));
    let mut command = Command::new(place.folder.path().join("hybridwg"));
    command.args(["up", "--foreground"]).arg(place.path());
    let _pod = place.start(command);

    let all = ["10.66.0.2", "[fd66::2]", "203.0.113.5", "[2001:db8::5]"];
    for own in all {
        assert!(connect(&place.hub, &format!("{own}:5432")).is_err(), "{own}");
        let answer = ask(&place.hub, &format!("{own}:5433"), b"x");
        assert!(answer.ends_with(b"1x"), "{own}: a port that is not exposed is the kernel's");
        // In fragments, of which the kernel joins those that are for it.
        let any = if own.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let asker = place.hub.run(|| UdpSocket::bind(any).unwrap());
        for (port, len) in [(53, 3000), (53, 3), (54, 3000)] {
            asker.send_to(&pattern(len), format!("{own}:{port}")).unwrap();
        }
        let mut room = [0; 4000];
        let len = other.recv(&mut room).unwrap();
        assert!(room[..len] == pattern(3000), "{own}");
    }
    names.set_nonblocking(true).unwrap();
    assert_eq!(names.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(ask(&place.hub, "192.168.8.1:5432", b"x"), b"::ffff:10.66.0.1x");
    let answered = place.pod.try_sh(&format!(
        "curl --silent --max-time 20 --interface 203.0.113.5 --local-port 5434 http://10.66.0.1:{page_port}/"
    ));
    assert!(answered.stdout.starts_with(b"GET / HTTP/1.1"), "an answer: {answered:?}");
    place.pod.sh("ip address add 203.0.113.6/32 dev lo");
    assert!(ask(&place.hub, "203.0.113.6:5433", b"x").ends_with(b"1x"));
    eventually("its new address is known", SOON, || {
        connect(&place.hub, "203.0.113.6:5432").is_err()
    });
}

#[test]
fn as_process_1_it_waits_for_orphans_and_for_flows_but_not_longer_than_it_may() {
    if skips(PROGRAMS) || skips(&["unshare", "nsenter", "sh", "sleep"]) {
        return;
    }
    let place = Place::new();
    let port = place.echo();
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
fn a_page_on_the_databases_port_is_reached_by_peers_of_from_alone() {
    if skips(PROGRAMS) || skips(&["curl", "wireguard-go"]) {
        return;
    }
    let (place, outsider) = (Place::new(), Host::new());
    outsider.wire("192.168.8.1/24", &place.pod, "192.168.8.2/24");
    let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let port = service.local_addr().unwrap().port();
    pages(service);
    let hub = place.join(Hybridwg);
    let second = End::start(&outsider, WireguardGo);
    second
        .setconf(&format!("[Peer]\nPublicKey = {}\nAllowedIPs = 10.66.0.2/32", place.keys.public));
    // The address of the one that is meant, too.
    second.up("10.66.0.20/24 10.66.0.1/32");
    let lines = format!(
        "#hybridwg: Expose = 5432 127.0.0.1:{port} from=10.66.0.1/32\n[Peer]\nPublicKey = {}\n\
         Endpoint = 192.168.8.1:{}\nAllowedIPs = 10.66.0.20/32\nPersistentKeepalive = 1",
        second.keys.public,
        second.port()
    );
    let _pod = place.up(&hub, &lines);
    let ping = "ping -n -q -c 1 -W 1 -I 10.66.0.20 10.66.0.2";
    eventually("both are there", SOON, || outsider.try_sh(ping).status.success());
    let page = |host: &Host, own: &str, seconds: u32| {
        host.try_sh(&format!(
            "curl --silent --max-time {seconds} --interface {own} http://10.66.0.2:5432/"
        ))
    };
    let meant = page(&place.hub, "10.66.0.1", 20);
    assert!(meant.stdout.starts_with(b"GET / HTTP/1.1, 0 bytes"), "{meant:?}");
    // Exit status 7: refused; 28: no answer at all.
    assert_eq!(page(&outsider, "10.66.0.20", 20).status.code(), Some(7));
    assert_eq!(page(&outsider, "10.66.0.1", 2).status.code(), Some(28), "under another's name");
}

#[test]
fn what_is_judged_by_this_hosts_addresses_is_refused_where_they_cannot_be_read() {
    if skips(PROGRAMS) {
        return;
    }
    let Some(place) = Place::confined() else { return };
    let port = place.echo();
    let hub = place.join(Hybridwg);
    place.write(&hub, "#hybridwg: Masquerade = flow");
    let refused = place.hybridwg(&["up", place.path().to_str().unwrap()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("AF_NETLINK"), "{told}");
    let lines = format!(
        "#hybridwg: Expose = 80 {NAME}:{port}\n#hybridwg: AllowTo = 127.0.0.0/8\n\
         #hybridwg: Expose = 81 127.0.0.1:{port}"
    );
    let mut pod = place.up(&hub, &lines);
    assert!(pod.log().contains(&format!("`Expose = 80 {NAME}:{port}` leads nowhere")));
    assert_eq!(ask(&place.hub, "10.66.0.2:81", b"x"), b"127.0.0.1x");
    let refused = connect(&place.hub, "10.66.0.2:80").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}
