//! What programs of a pod reach in the tunnel: through forwards, proxies and `hybridwg nc`.
//!
//! ```text
//! services ── hub (TUN) ══ tunnel ══ pod: uid 65534, no capability, the system calls of a container
//! ```
//!
//! The hub has another address outside the tunnel, which the pod's host reaches: nothing may go there.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use super::net::{Host, eventually};
use super::pod::{
    PROGRAMS, Place, SOON, ask, ask_by_datagram, connect, echo_at_the_end, echo_datagrams, pages,
    pattern, shown,
};
use super::skips;
use super::tunnel::End;
use super::tunnel::Program::{Hybridwg, WireguardGo};

const ECHO: u16 = 7;
const PAGES: u16 = 80;
const CLOSED: u16 = 81;
const CUT: u16 = 82;

/// Starts the services, at all addresses of the hub, and a name server: `app.test` is the hub inside,
/// `outside.test` is not.
fn serve(hub: &End<'_>) {
    hub.host.run(|| {
        echo_at_the_end(TcpListener::bind(("::", ECHO)).unwrap());
        pages(TcpListener::bind(("::", PAGES)).unwrap());
        echo_datagrams(UdpSocket::bind(("::", ECHO)).unwrap());
        answer_names(UdpSocket::bind(("10.66.0.1", 53)).unwrap());
    });
}

/// A name server. [RFC 1035 §4.1]
fn answer_names(socket: UdpSocket) {
    thread::spawn(move || {
        let mut room = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut room) {
            let question = &room[..len];
            let address: &[u8] = match (question[12..].split_at_checked(10), question[len - 3]) {
                (Some((b"\x03app\x04test\0", _)), 1) => &[10, 66, 0, 1],
                (Some((b"\x03app\x04test\0", _)), 28) => {
                    &[0xfd, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
                }
                _ if question[13..].starts_with(b"outside") && question[len - 3] == 1 => {
                    &[192, 168, 7, 1]
                }
                _ => &[],
            };
            let mut answer = question.to_vec();
            (answer[2], answer[3]) = (0x81, 0x80);
            if !address.is_empty() {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, question[len - 3], 0, 1, 0, 0, 0, 60, 0]);
                answer.push(address.len() as u8);
                answer.extend(address);
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

fn curl(place: &Place, arguments: &str) -> Output {
    place.pod.try_sh(&format!("curl --silent --show-error --max-time 20 {arguments}"))
}

/// What curl has got.
#[track_caller]
fn page(place: &Place, arguments: &str) -> String {
    let output = curl(place, arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn forwards_lead_into_the_tunnel_over_tcp_udp_and_a_unix_socket() {
    for program in [Hybridwg, WireguardGo] {
        if skips(PROGRAMS) || skips(&["wireguard-go"]) {
            return;
        }
        let Some(place) = Place::confined() else { return };
        let hub = place.join(program);
        serve(&hub);
        let socket = place.folder.path().join("app.sock");
        let lines = format!(
            "DNS = 10.66.0.1\n\
             #hybridwg: Forward = 127.0.0.1:11001 10.66.0.1:{ECHO}\n\
             #hybridwg: Forward = 127.0.0.1:11002 [fd66::1]:{ECHO}\n\
             #hybridwg: Forward = 127.0.0.1:11003 app.test:{ECHO}\n\
             #hybridwg: Forward = 127.0.0.1:11004 10.66.0.1:{CLOSED}\n\
             #hybridwg: Forward = unix:{} 10.66.0.1:{ECHO}\n\
             #hybridwg: Forward = 127.0.0.1:11001/udp 10.66.0.1:{ECHO}",
            socket.display()
        );
        let _pod = place.up(&hub, &lines);
        let sent = pattern(1 << 20);
        for (port, from) in [(11001, "10.66.0.2"), (11002, "fd66::2")] {
            let answer = ask(&place.pod, &format!("127.0.0.1:{port}"), &sent);
            let (caller, said) = answer.split_at(answer.len() - sent.len());
            assert!(caller.ends_with(from.as_bytes()) && said == sent, "{port}: whole");
        }
        assert!(ask(&place.pod, "127.0.0.1:11003", b"by name").ends_with(b"by name"));
        let mut refused = connect(&place.pod, "127.0.0.1:11004").unwrap();
        // Accepted before anybody knew; then it ends, or is reset.
        match refused.read(&mut [0; 1]) {
            Ok(len) => assert_eq!(len, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }

        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"over unix").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.ends_with(b"over unix"), "{}", answer.escape_ascii());
        for len in [1, 1200, 20_000] {
            let answer = ask_by_datagram(&place.pod, "127.0.0.1:11001", len).unwrap();
            assert!(answer == pattern(len), "{len} bytes");
        }

        // The service ends first, and the client goes on.
        let listener = hub.host.run(|| TcpListener::bind(("10.66.0.1", CLOSED)).unwrap());
        let mut client = connect(&place.pod, "127.0.0.1:11004").unwrap();
        let (mut served, from) = listener.accept().unwrap();
        assert_eq!(from.ip().to_string(), "10.66.0.2");
        served.set_read_timeout(Some(SOON)).unwrap();
        served.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        client.write_all(b"more").unwrap();
        drop(client);
        let mut more = String::new();
        served.read_to_string(&mut more).unwrap();
        assert_eq!(more, "more");
    }
}

const PROXIES: &str = "DNS = 10.66.0.1\n\
                       #hybridwg: Socks5 = 127.0.0.1:1080 user=ci password=sesame\n\
                       #hybridwg: HttpProxy = 127.0.0.1:8080 user=ci password=sesame\n\
                       #hybridwg: Proxy = 127.0.0.1:1081";

#[test]
fn socks_clients_reach_names_and_addresses_in_the_tunnel_and_nothing_beside_it() {
    for program in [Hybridwg, WireguardGo] {
        if skips(PROGRAMS) || skips(&["curl", "wireguard-go"]) {
            return;
        }
        let Some(place) = Place::confined() else { return };
        let hub = place.join(program);
        serve(&hub);
        let _pod = place.up(&hub, PROXIES);
        let first = "GET /x HTTP/1.1, 0 bytes";
        for target in ["app.test", "10.66.0.1", "[fd66::1]"] {
            for proxy in ["ci:sesame@127.0.0.1:1080", "127.0.0.1:1081"] {
                let got = page(&place, &format!("-g -x socks5h://{proxy} http://{target}/x"));
                assert!(got.starts_with(first), "{proxy} {target}: {got}");
            }
        }
        // Of curl's exit statuses 97 is what a proxy has said. [RFC 1928 §6]
        for (proxy, target, told) in [
            ("ci:other@127.0.0.1:1080", "app.test", "User was rejected by the SOCKS5 server (1 1)"),
            ("127.0.0.1:1080", "app.test", "No authentication method was acceptable"),
            ("127.0.0.1:1081", "10.66.0.1:81", "(5)"),
            ("127.0.0.1:1081", "192.168.7.1", "(2)"),
            ("127.0.0.1:1081", "outside.test", "(2)"),
            ("127.0.0.1:1081", "127.0.0.1:1080", "(2)"),
            ("127.0.0.1:1081", "nobody.test", "(4)"),
        ] {
            let output = curl(&place, &format!("-x socks5h://{proxy} http://{target}/x"));
            let heard = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(97), "{target}: {heard}");
            assert!(heard.contains(told), "{target}: {heard}");
        }
        assert!(place.pod.try_sh("curl -s http://192.168.7.1/").status.success(), "it is there");
        associate(&place.pod, &[b"\x01\x0a\x42\0\x01", b"\x03\x08app.test"]);
    }
}

/// Sends datagrams to the echo at `places`, which are spelt as in a request. [RFC 1928 §5, §7]
fn associate(pod: &Host, places: &[&[u8]]) {
    let mut control = connect(pod, "127.0.0.1:1081").unwrap();
    control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").unwrap();
    let mut granted = [0; 12];
    control.read_exact(&mut granted).unwrap();
    assert_eq!(granted[..10], *b"\x05\0\x05\0\0\x01\x7f\0\0\x01", "where the client is heard");
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([granted[10], granted[11]])));
    let client = pod.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut room = [0; 512];
    for place in places {
        client.send_to(&[&[0, 0, 0], *place, &[0, 7], b"hello"].concat(), relay).unwrap();
        let len = client.recv(&mut room).unwrap();
        assert!(room[..len].starts_with(&[0, 0, 0]) && room[..len].ends_with(b"\0\x07hello"));
    }
    drop(control);
    client.connect(relay).unwrap();
    eventually("the relay ends with its connection", SOON, || client.send(b"late").is_err());
}

#[test]
fn http_clients_get_pages_and_connections_in_the_tunnel_and_keep_what_they_said_early() {
    for program in [Hybridwg, WireguardGo] {
        if skips(PROGRAMS) || skips(&["curl", "wireguard-go"]) {
            return;
        }
        let Some(place) = Place::confined() else { return };
        let hub = place.join(program);
        serve(&hub);
        let _pod = place.up(&hub, PROXIES);
        let content = pattern(300_000);
        let file = place.folder.path().join("content");
        fs::write(&file, &content).unwrap();
        let sum: u64 = content.iter().map(|&byte| u64::from(byte)).sum();
        let post = format!("--data-binary @{}", file.display());
        for proxy in ["http://ci:sesame@127.0.0.1:8080", "http://127.0.0.1:1081"] {
            for target in ["http://app.test", "http://10.66.0.1", "http://[fd66::1]"] {
                let got = page(&place, &format!("-g -x {proxy} {target}/x?y"));
                assert!(got.starts_with("GET /x?y HTTP/1.1, 0 bytes"), "{got}");
                assert!(!got.contains("Proxy-"), "what is for the proxy alone: {got}");
            }
            let got = page(&place, &format!("-x {proxy} {post} http://app.test/x"));
            let whole = format!("POST /x HTTP/1.1, 300000 bytes, sum {sum}");
            assert!(got.starts_with(&whole), "{got}");
            let got = page(&place, &format!("-p -x {proxy} {post} http://app.test/x"));
            assert!(got.starts_with(&whole), "by CONNECT: {got}");
        }
        for (proxy, target, status) in [
            ("ci:other@127.0.0.1:8080", "app.test", "407"),
            ("127.0.0.1:8080", "app.test", "407"),
            ("127.0.0.1:1081", "10.66.0.1:81", "502"),
            ("127.0.0.1:1081", "192.168.7.1", "403"),
            ("127.0.0.1:1081", "outside.test", "403"),
            ("127.0.0.1:1081", "nobody.test", "502"),
        ] {
            let got = page(
                &place,
                &format!("-o /dev/null -w %{{http_code}} -x http://{proxy} http://{target}/x"),
            );
            assert_eq!(got, status, "{proxy} {target}");
        }
        let said = format!("CONNECT app.test:{ECHO} HTTP/1.1\r\n\r\nearly");
        let heard = ask(&place.pod, "127.0.0.1:1081", said.as_bytes());
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard.starts_with("HTTP/1.1 200 ") && heard.ends_with("early"), "{heard}");
    }
}

#[test]
fn a_page_that_its_server_cuts_off_is_no_whole_one_for_the_client() {
    if skips(PROGRAMS) {
        return;
    }
    let Some(place) = Place::confined() else { return };
    let hub = place.join(Hybridwg);
    serve(&hub);
    let _pod = place.up(&hub, PROXIES);
    let listener = hub.host.run(|| TcpListener::bind(("10.66.0.1", CUT)).unwrap());
    let (cut, is_heard) = mpsc::channel::<()>();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // What stays unread makes the end a reset.
        stream.read_exact(&mut [0; 4]).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf").unwrap();
        is_heard.recv().unwrap();
    });
    let mut client = connect(&place.pod, "127.0.0.1:1081").unwrap();
    client.write_all(format!("GET http://10.66.0.1:{CUT}/ HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"half") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        heard.extend(byte);
    }
    cut.send(()).unwrap();
    server.join().unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn standard_input_and_output_are_led_into_the_tunnel() {
    if skips(PROGRAMS) {
        return;
    }
    let Some(place) = Place::confined() else { return };
    let hub = place.join(Hybridwg);
    serve(&hub);
    let lines =
        format!("DNS = 10.66.0.1\n#hybridwg: Mode = rootless\n#hybridwg: Stdio = app.test:{ECHO}");
    let _pod = place.up(&hub, &lines);
    let echo = ECHO.to_string();
    for to in [&["10.66.0.1", &*echo][..], &["fd66::1", &*echo], &["app.test", &*echo], &[]] {
        let words = [&["nc", "--tunnel", &*place.interface][..], to].concat();
        let text = "x".repeat(200_000);
        let heard = place.pod.feed(place.command(&words), &text);
        assert!(heard.ends_with(&text), "{to:?}: {} bytes", heard.len());
    }
    // The hub's is root's, and nobody else may speak to it.
    let own = place.command(&["nc", "10.66.0.1", &echo]);
    assert!(place.pod.feed(own, "x").ends_with('x'), "the only one of this user");
    for (host, port, told) in [
        ("10.66.0.1", "81", "connection refused"),
        ("192.168.7.1", "80", "no peer"),
        ("nobody.test", "80", "no such name"),
    ] {
        let output = place.hybridwg(&["nc", "--tunnel", &place.interface, host, port]);
        let heard = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && heard.contains(told), "{host}: {heard}");
    }
}

#[test]
fn ends_are_spelt_as_for_ssh_or_stand_in_the_environment() {
    if skips(PROGRAMS) || skips(&["curl"]) {
        return;
    }
    let Some(place) = Place::confined() else { return };
    let hub = place.join(Hybridwg);
    serve(&hub);
    let port = place.echo();
    place.write(&hub, "");
    let file = place.path();
    let local = format!("11001:10.66.0.1:{ECHO}");
    let remote = format!("90:127.0.0.1:{port}");
    let mut command = place.command(&["up", "--foreground", "-L", &local, "-R", &remote]);
    command.args(["-D", "1080"]).arg(file);
    command.env("HYBRIDWG_EXTRA", format!("Forward = 127.0.0.1:11002 10.66.0.1:{ECHO}"));
    let _pod = place.start(command);
    for own in ["127.0.0.1:11001", "127.0.0.1:11002"] {
        assert!(ask(&place.pod, own, b"hello").ends_with(b"10.66.0.2hello"), "{own}");
    }
    assert_eq!(ask(&place.hub, "10.66.0.2:90", b"hello"), b"127.0.0.1hello");
    let got = page(&place, "--socks5 127.0.0.1:1080 http://10.66.0.1/x");
    assert!(got.starts_with("GET /x "), "{got}");
}

#[test]
fn the_resolver_of_the_host_is_asked_where_the_file_says_so_alone() {
    if skips(PROGRAMS) || skips(&["curl", "unshare", "mount"]) {
        return;
    }
    let Some(place) = Place::confined() else { return };
    let hub = place.join(Hybridwg);
    serve(&hub);
    let names = place.folder.path().join("hosts");
    fs::write(&names, "10.66.0.1 host.test\n192.168.7.1 outside.test\n").unwrap();
    for (via, is_asked) in [("system", true), ("tunnel", false)] {
        place.write(
            &hub,
            &format!("#hybridwg: Proxy = 127.0.0.1:1081\n#hybridwg: ResolveVia = {via}"),
        );
        // With a file of names of its own.
        let inner = place.command(&["up", "--foreground", place.path().to_str().unwrap()]);
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(&names);
        command.arg(inner.get_program()).args(inner.get_args()).current_dir("/");
        let variables = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.envs(variables);
        let _pod = place.start(command);
        let got = |target: &str| {
            let got = page(
                &place,
                &format!(
                    "-o /dev/null -w %{{http_code}} -x http://127.0.0.1:1081 http://{target}/"
                ),
            );
            got == "200"
        };
        assert_eq!(got("host.test"), is_asked, "{via}");
        assert!(!got("outside.test"), "{via}");
    }
}

#[test]
fn with_an_interface_the_same_ways_lead_into_it_and_nowhere_else() {
    if skips(PROGRAMS) || skips(&["curl"]) {
        return;
    }
    let place = Place::new();
    let hub = place.join(Hybridwg);
    serve(&hub);
    let lines = format!(
        "{PROXIES}\n#hybridwg: Mode = tun\n#hybridwg: Forward = 127.0.0.1:11001 10.66.0.1:{ECHO}"
    )
    // The host's name servers are not this test's.
    .replace("DNS = 10.66.0.1\n", "");
    place.write(&hub, &lines);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.args(["up", "--foreground"]).arg(place.path());
    let _tunnel = place.start(command);
    let sent = pattern(1 << 20);
    assert!(ask(&place.pod, "127.0.0.1:11001", &sent).ends_with(&sent));
    for (proxy, target) in [("socks5h", "10.66.0.1"), ("http", "10.66.0.1"), ("http", "[fd66::1]")]
    {
        let got = page(&place, &format!("-g -x {proxy}://127.0.0.1:1081 http://{target}/x"));
        assert!(got.starts_with("GET /x HTTP/1.1, 0 bytes"), "{got}");
    }
    associate(&place.pod, &[b"\x01\x0a\x42\0\x01"]);
    let output = curl(&place, "-x socks5h://127.0.0.1:1081 http://192.168.7.1/");
    assert_eq!(output.status.code(), Some(97), "{output:?}");
}

/// How many flows the daemon says that there are.
fn flows(place: &Place) -> Option<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.args(["show", &place.interface, "--json"]);
    shown(&place.pod.output(command))["flows"].as_u64()
}

#[test]
fn with_an_interface_too_flows_of_each_kind_are_counted_and_have_some_time_at_the_end() {
    if skips(PROGRAMS) {
        return;
    }
    for (grace, ends_by_itself) in [("600", true), ("1", false)] {
        let place = Place::new();
        let port = place.echo();
        let hub = place.join(Hybridwg);
        serve(&hub);
        let lines = format!(
            "#hybridwg: Expose = 80 127.0.0.1:{port}\n#hybridwg: Proxy = 127.0.0.1:1081\n\
             #hybridwg: Forward = 127.0.0.1:11001 10.66.0.1:{ECHO}\n\
             #hybridwg: Expose = 53/udp 127.0.0.1:{port}"
        );
        place.write(&hub, &lines);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
        let remote = format!("90:127.0.0.1:{port}");
        command.args(["up", "--foreground", "--grace", grace, "-R", &remote]).arg(place.path());
        let mut tunnel = place.start(command);
        assert_eq!(flows(&place), Some(0));
        let [exposed, by_option] =
            ["10.66.0.2:80", "10.66.0.2:90"].map(|own| connect(&place.hub, own).unwrap());
        let [forwarded, mut by_proxy] =
            ["127.0.0.1:11001", "127.0.0.1:1081"].map(|own| connect(&place.pod, own).unwrap());
        by_proxy.write_all(b"\x05\x01\0\x05\x01\0\x01\x0a\x42\0\x01\0\x07").unwrap();
        by_proxy.read_exact(&mut [0; 12]).unwrap();
        // What has no end is not waited for.
        let asker = place.hub.run(|| UdpSocket::bind("10.66.0.1:0").unwrap());
        eventually("each is a flow", SOON, || {
            asker.send_to(b"hello", "10.66.0.2:53").unwrap();
            flows(&place) == Some(5)
        });

        tunnel.terminate();
        for own in ["10.66.0.2:80", "10.66.0.2:90"] {
            eventually("no peer gets in any more", SOON, || connect(&place.hub, own).is_err());
        }
        if ends_by_itself {
            let mut late = connect(&place.pod, "127.0.0.1:11001").unwrap();
            late.set_read_timeout(Some(SOON)).unwrap();
            let refused = late.read_exact(&mut [0]).unwrap_err().kind();
            assert!(matches!(refused, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset));
        }
        let mut streams = [exposed, by_option, forwarded, by_proxy];
        for stream in streams.iter_mut().filter(|_| ends_by_itself) {
            stream.write_all(b"still here").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("still here"), "{answer}");
        }
        eventually("it has ended", SOON, || !tunnel.is_alive());
        let link = place.pod.try_sh(&format!("ip link show {}", place.interface));
        assert!(!link.status.success(), "{}", tunnel.log());
    }
}

#[test]
fn where_the_end_does_not_come_all_get_in_as_before() {
    if skips(PROGRAMS) {
        return;
    }
    let place = Place::new();
    let port = place.echo();
    let hub = place.join(Hybridwg);
    serve(&hub);
    let lines = format!(
        "#hybridwg: Expose = 80 127.0.0.1:{port}\n\
         #hybridwg: Forward = 127.0.0.1:11001 10.66.0.1:{ECHO}"
    );
    place.write(&hub, &format!("PreDown = false\n{lines}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.args(["up", "--foreground"]).arg(place.path());
    let mut tunnel = place.start(command);
    assert!(ask(&place.pod, "127.0.0.1:11001", b"up").ends_with(b"up"));
    tunnel.terminate();
    eventually("it has given up", SOON, || !tunnel.is_alive());
    let log = tunnel.log();
    assert!(log.contains("PreDown") && !log.contains("cannot run"), "{log}");
    assert!(ask(&place.hub, "10.66.0.2:80", b"still").ends_with(b"still"));
    assert!(ask(&place.pod, "127.0.0.1:11001", b"here").ends_with(b"here"));
    place.write(&hub, &lines);
    let mut command = Command::new(env!("CARGO_BIN_EXE_hybridwg"));
    command.arg("down").arg(place.path());
    let down = place.pod.output(command);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
}

#[test]
fn what_the_end_cuts_is_reset_on_both_sides_and_not_taken_for_the_whole() {
    if skips(PROGRAMS) {
        return;
    }
    for has_interface in [false, true] {
        let place = Place::new();
        let hub = place.join(Hybridwg);
        let service = place.pod.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let beyond = place.hub.run(|| TcpListener::bind("10.66.0.1:90").unwrap());
        let port = service.local_addr().unwrap().port();
        let lines = format!(
            "#hybridwg: Expose = 80 127.0.0.1:{port}\n#hybridwg: Forward = 127.0.0.1:9090 10.66.0.1:90"
        );
        place.write(&hub, &lines);
        let file = place.path();
        let words = ["up", "--foreground", "--grace", "1", file.to_str().unwrap()];
        let mut command = place.command(&words);
        if has_interface {
            command = Command::new(place.folder.path().join("hybridwg"));
            command.args(words);
        }
        let mut pod = place.start(command);
        let exposed = (connect(&place.hub, "10.66.0.2:80").unwrap(), service.accept().unwrap().0);
        let mut client = None;
        // What leads into the tunnel listens last of all.
        eventually("it listens", SOON, || {
            client = connect(&place.pod, "127.0.0.1:9090").ok();
            client.is_some()
        });
        let forwarded = (client.unwrap(), beyond.accept().unwrap().0);
        for (client, server) in [&exposed, &forwarded] {
            let (mut client, mut server) = (client, server);
            client.write_all(b"half").unwrap();
            server.set_read_timeout(Some(SOON)).unwrap();
            server.read_exact(&mut [0; 4]).unwrap();
        }
        pod.terminate();
        // Beside an interface it is the kernel that speaks to who is beyond, and it has no way any more.
        let beyond = Some(&forwarded.1).filter(|_| !has_interface);
        for mut side in [&exposed.0, &exposed.1, &forwarded.0].into_iter().chain(beyond) {
            // Unlike `read`, it goes on when a child of another test ends.
            let outcome = side.read_exact(&mut [0]);
            assert_eq!(
                outcome.unwrap_err().kind(),
                ErrorKind::ConnectionReset,
                "{:?}, interface: {has_interface}",
                side.local_addr()
            );
        }
        eventually("it has ended", SOON, || !pod.is_alive());
    }
}
