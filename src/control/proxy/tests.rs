//! Clients of all kinds, with this host's loopback interface in the place of the tunnel.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use simple_dns::RCODE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixStream};

use super::dns::Family;
use super::dns::testing::{is_for, reply, truncated};
use super::way::Host;
use super::*;
use crate::control::ends::HostPort;
use crate::control::ends::ResolveVia;

/// What must come comes by then, also on a busy machine.
pub(super) const SOON: Duration = Duration::from_secs(30);

pub(super) fn run<F: Future>(test: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_io().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, test).await.expect("in time") })
}

/// Only to 127.0.0.1.
fn way() -> Way {
    let leads_to = |address: IpAddr| address == IpAddr::V4(Ipv4Addr::LOCALHOST);
    Way::Host(Host { interface: None, leads_to: Arc::new(leads_to), count: Count::default() })
}

/// A port that is free, if nobody takes it meanwhile.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A proxy, and where it listens.
async fn proxy(kind: ProxyKind, options: &str) -> (Proxies, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await));
    let proxy = Proxy::parse(kind, &format!("{address} {options}")).unwrap();
    let mut proxies = Proxies::default();
    proxies.apply(way(), Serving { proxies: vec![proxy], ..Serving::default() }).unwrap();
    (proxies, address)
}

/// Somebody who answers each connection with all that was said to him, when that has ended.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
            });
        }
    });
    place
}

fn request(command: u8, to: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(v4) = to else { panic!("IPv4 is used here") };
    [&[5, command, 0, 1][..], &v4.ip().octets(), &to.port().to_be_bytes()].concat()
}

/// Says `said` at once, and what is heard back up to the end.
async fn ask(proxy: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    heard
}

#[test]
fn a_socks_client_reaches_what_the_tunnel_reaches_and_is_told_why_not_otherwise() {
    run(async {
        let (_proxies, proxy) = proxy(ProxyKind::Socks5, "").await;
        let hello = [5, 1, 0];
        let granted = [&[5, 0][..], &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
        let early = [&hello[..], &request(1, echo().await), b"early"].concat();
        assert_eq!(ask(proxy, &early).await, [&granted[..], b"early"].concat());
        for (to, code) in [
            (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await)), 5),
            ("127.0.0.2:9".parse().unwrap(), 2),
            ("192.0.2.1:9".parse().unwrap(), 2),
        ] {
            let heard = ask(proxy, &[&hello[..], &request(1, to)].concat()).await;
            assert_eq!(heard, [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0], "{to}");
        }
        let bind = [&hello[..], &request(2, "127.0.0.1:9".parse().unwrap())].concat();
        assert_eq!(ask(proxy, &bind).await[3], 7, "BIND");
        let named = [&hello[..], &[5, 1, 0, 3, 4], b"db.e", &[0, 80]].concat();
        assert_eq!(ask(proxy, &named).await[3], 2, "no name server");
        assert_eq!(ask(proxy, b"\x05\x01\x02").await, [5, 0xff], "no password is wanted");
        assert_eq!(ask(proxy, b"GET / HTTP/1.1\r\n\r\n").await, b"", "this is not HTTP");
    });
}

#[test]
fn a_password_is_wanted_and_a_wrong_one_let_in_by_neither_protocol() {
    run(async {
        let (_proxies, proxy) = proxy(ProxyKind::Both, "user=ci password=sesame").await;
        let login = |user: &str, password: &str| {
            let part = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
            let said = [&[5, 2, 0, 2, 1][..], &part(user), &part(password)].concat();
            [said, request(1, "192.0.2.1:9".parse().unwrap())].concat()
        };
        assert_eq!(ask(proxy, &login("ci", "sesame")).await[..6], [5, 2, 1, 0, 5, 2]);
        for (user, password) in [("ci", "sesam"), ("cj", "sesame")] {
            assert_eq!(ask(proxy, &login(user, password)).await, [5, 2, 1, 1]);
        }
        assert_eq!(ask(proxy, &[5, 1, 0]).await, [5, 0xff]);
        let connect =
            |field: &str| format!("CONNECT 192.0.2.1:9 HTTP/1.1\r\n{field}\r\n").into_bytes();
        let heard = ask(proxy, &connect("Proxy-Authorization: Basic Y2k6c2VzYW1l\r\n")).await;
        assert!(heard.starts_with(b"HTTP/1.1 403 "), "ci:sesame, and no peer");
        for wrong in ["", "Proxy-Authorization: Basic Y2k6c2VzYW0=\r\n"] {
            let heard = String::from_utf8(ask(proxy, &connect(wrong)).await).unwrap();
            assert!(heard.starts_with("HTTP/1.1 407 "), "{heard}");
            assert!(heard.contains("Proxy-Authenticate: Basic realm="), "{heard}");
        }
    });
}

#[test]
fn an_http_client_reaches_servers_by_connect_and_by_exchanges_that_end_where_they_end() {
    run(async {
        let (_proxies, proxy) = proxy(ProxyKind::Http, "").await;
        let echo = echo().await;
        let said = format!("CONNECT {echo} HTTP/1.1\r\nHost: {echo}\r\n\r\nearly");
        let heard = ask(proxy, said.as_bytes()).await;
        assert_eq!(heard, b"HTTP/1.1 200 Connection established\r\n\r\nearly");

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n0123") {
                assert!(stream.read_buf(&mut heard).await.unwrap() > 0, "{heard:?}");
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n").await.unwrap();
            stream
                .write_all(b"Connection: keep-alive\r\nContent-Length: 2\r\n\r\nhi")
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
            stream.read_to_end(&mut heard).await.unwrap();
            String::from_utf8(heard).unwrap()
        });
        let said = format!(
            "POST http://{place}/x HTTP/1.1\r\nContent-Length: 4\r\nProxy-Connection: keep-alive\r\n\r\n\
             0123GET http://elsewhere/ HTTP/1.1\r\n\r\n"
        );
        let heard = String::from_utf8(ask(proxy, said.as_bytes()).await).unwrap();
        let via = "Via: 1.1 hybridwg\r\nConnection: close\r\n\r\n";
        assert_eq!(
            heard,
            format!(
                "HTTP/1.1 100 Continue\r\n{via}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{via}hi"
            )
        );
        assert_eq!(
            server.await.unwrap(),
            format!("POST /x HTTP/1.1\r\nHost: {place}\r\nContent-Length: 4\r\n{via}0123")
        );
        let gone = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().await));
        let heard = ask(proxy, format!("GET http://{gone}/ HTTP/1.1\r\n\r\n").as_bytes()).await;
        assert!(heard.starts_with(b"HTTP/1.1 502 ") && heard.ends_with(b"connection refused\n"));
    });
}

#[test]
fn datagrams_of_a_socks_client_are_carried_and_nobody_elses() {
    run(async {
        let (_proxies, proxy) = proxy(ProxyKind::Socks5, "").await;
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let place = server.local_addr().unwrap();
        let mut control = TcpStream::connect(proxy).await.unwrap();
        let unknown = "0.0.0.0:0".parse().unwrap();
        control.write_all(&[&[5, 1, 0][..], &request(3, unknown)].concat()).await.unwrap();
        let mut granted = [0; 12];
        control.read_exact(&mut granted).await.unwrap();
        assert_eq!(granted[..10], [5, 0, 5, 0, 0, 1, 127, 0, 0, 1]);
        let port = u16::from_be_bytes([granted[10], granted[11]]);
        let relay = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let wrapped = |text: &str| socks::wrap_datagram(text.as_bytes(), place);
        let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        stranger.send_to(&wrapped("stranger"), relay).await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut piece = wrapped("piece");
        piece[2] = 1;
        client.send_to(&piece, relay).await.unwrap();
        client.send_to(&wrapped("hello"), relay).await.unwrap();
        let mut buffer = [0; 100];
        let (length, inner) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"hello", "the first that comes");
        server.send_to(b"answer", inner).await.unwrap();
        let length = client.recv(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], wrapped("answer"));
        drop(control);
        // Nobody is there any more: the kernel says so.
        client.connect(relay).await.unwrap();
        while client.send(&wrapped("late")).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn forwards_lead_to_one_place_over_tcp_unix_sockets_and_udp() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sock");
        // Somebody has left it behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let place = server.local_addr().unwrap();
        let (echo, tcp, udp) = (echo().await, free_port().await, free_port().await);
        let lines = [
            format!("127.0.0.1:{tcp} {echo}"),
            format!("unix:{} {echo}", path.display()),
            format!("127.0.0.1:{udp}/udp {place}"),
        ];
        let forwards = lines.iter().map(|line| Forward::parse(line).unwrap()).collect();
        let mut proxies = Proxies::default();
        proxies.apply(way(), Serving { forwards, ..Serving::default() }).unwrap();
        assert_eq!(
            ask(SocketAddr::from((Ipv4Addr::LOCALHOST, tcp)), b"over tcp").await,
            b"over tcp"
        );
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(b"over unix").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"over unix");
        for text in ["one", "two"] {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.send_to(text.as_bytes(), ("127.0.0.1", udp)).await.unwrap();
            let mut buffer = [0; 100];
            let (length, inner) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], text.as_bytes());
            server.send_to(b"answer", inner).await.unwrap();
            assert_eq!(client.recv(&mut buffer).await.unwrap(), 6);
        }
        drop(proxies);
        assert!(!path.exists());
    });
}

#[test]
fn a_change_keeps_what_stays_and_takes_nothing_half() {
    run(async {
        let (mut proxies, place) = proxy(ProxyKind::Socks5, "user=ci password=sesame").await;
        let mut talking = TcpStream::connect(place).await.unwrap();
        talking.write_all(&[5, 1, 2]).await.unwrap();
        let mut heard = [0; 2];
        talking.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [5, 2]);
        let kept = |line: &str| {
            let mut proxy = Proxy::parse(ProxyKind::Http, line).unwrap();
            if let Some(login) = &mut proxy.login {
                login.password = None;
            }
            Serving { proxies: vec![proxy], ..Serving::default() }
        };
        proxies.apply(way(), kept(&format!("{place} user=ci password=x"))).unwrap();
        talking.write_all(b"\x01\x02ci\x06sesame").await.unwrap();
        talking.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, [1, 0], "it goes on as it began");
        let said =
            b"CONNECT 192.0.2.1:9 HTTP/1.1\r\nProxy-Authorization: Basic Y2k6c2VzYW1l\r\n\r\n";
        assert!(ask(place, said).await.starts_with(b"HTTP/1.1 403 "), "with the password it had");

        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refused = kept(&format!("{} open=yes", taken.local_addr().unwrap()));
        let error = proxies.apply(way(), refused).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(ask(place, said).await.starts_with(b"HTTP/1.1 403 "), "as before");
        let unknown = kept(&format!("127.0.0.1:{} user=ci password=x", free_port().await));
        assert!(proxies.apply(way(), unknown).is_err(), "nobody knows its password");
        let other = kept(&format!("127.0.0.1:{} open=yes", free_port().await));
        proxies.apply(way(), other).unwrap();
        // Those who leave have their turn to do so.
        tokio::task::yield_now().await;
        proxies.restore(way()).unwrap();
        assert!(
            ask(place, said).await.starts_with(b"HTTP/1.1 403 "),
            "as it was, after it had gone"
        );
        let line = format!("{place} user=ci password=sesam");
        let changed = Proxy::parse(ProxyKind::Http, &line).unwrap();
        let changed = Serving { proxies: vec![changed], ..Serving::default() };
        proxies.apply(way(), changed).unwrap();
        assert!(ask(place, said).await.starts_with(b"HTTP/1.1 407 "), "another password");
        proxies.restore(way()).unwrap();
        assert!(ask(place, said).await.starts_with(b"HTTP/1.1 403 "), "the one before");
        proxies.apply(way(), Serving::default()).unwrap();
        while TcpStream::connect(place).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_path_whose_listener_has_no_room_is_not_taken_nor_waited_for() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db.sock");
        let busy = std::os::unix::net::UnixListener::bind(&path).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = Stream::connect_to_path(&path) {
            waiting.push(stream);
        }
        let forward = Forward::parse(&format!("unix:{} 10.0.0.1:1", path.display())).unwrap();
        let serving = Serving { forwards: vec![forward], ..Serving::default() };
        let error = Proxies::default().apply(way(), serving).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
    });
}

/// Whether the kernel asks after a while whether the other end of the connection between these ports
/// lives, when nothing is under way. [LNX tcp_ipv4.c:get_tcp4_sock]
fn is_kept_alive(local: u16, remote: u16) -> bool {
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ends = format!("0100007F:{local:04X} 0100007F:{remote:04X} 01 ");
    let row = table.lines().find(|row| row.contains(&ends));
    row.is_some_and(|row| row.split_whitespace().nth(5).unwrap().starts_with("02:"))
}

#[test]
fn a_reset_of_one_side_is_one_of_the_other_and_both_are_asked_whether_they_live() {
    run(async {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = server.local_addr().unwrap();
        let port = free_port().await;
        let forward = Forward::parse(&format!("127.0.0.1:{port} {place}")).unwrap();
        let mut proxies = Proxies::default();
        proxies.apply(way(), Serving { forwards: vec![forward], ..Serving::default() }).unwrap();
        for is_server in [true, false] {
            let client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (service, from) = server.accept().await.unwrap();
            let of_client = client.local_addr().unwrap().port();
            while !is_kept_alive(port, of_client) || !is_kept_alive(from.port(), place.port()) {
                tokio::task::yield_now().await;
            }
            let (mut cut, mut other) =
                if is_server { (service, client) } else { (client, service) };
            cut.write_all(b"half").await.unwrap();
            let mut heard = [0; 4];
            other.read_exact(&mut heard).await.unwrap();
            cut.set_zero_linger().unwrap();
            drop(cut);
            let error = other.read(&mut heard).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn clients_that_say_nothing_are_in_nobody_elses_way() {
    crate::sys::sockets::raise_descriptor_limit();
    run(async {
        let [proxied, forwarded] = [free_port().await, free_port().await];
        let echo = echo().await;
        let line = format!("127.0.0.1:{proxied} user=ci password=sesame");
        let proxy = Proxy::parse(ProxyKind::Socks5, &line).unwrap();
        let forward = Forward::parse(&format!("127.0.0.1:{forwarded} {echo}")).unwrap();
        let (proxies, forwards) = (vec![proxy], vec![forward]);
        let mut listeners = Proxies::default();
        listeners.apply(way(), Serving { forwards, proxies, ..Serving::default() }).unwrap();
        let mut silent = Vec::new();
        for _ in 0..512 {
            silent.push(TcpStream::connect(("127.0.0.1", proxied)).await.unwrap());
        }
        let place = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        assert_eq!(ask(place(forwarded), b"hello").await, b"hello");
        assert_eq!(ask(place(proxied), &[5, 1, 2]).await, [5, 2]);
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "the oldest went");
        silent[1].write_all(&[5, 1, 2]).await.unwrap();
        assert_eq!(silent[1].read(&mut [0; 2]).await.unwrap(), 2, "the others stay");
    });
}

/// Answers over UDP and TCP on one port, and counts the questions.
async fn name_server(records: &'static [(&'static str, u32, &'static str)]) -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(place).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let question = &buffer[..length];
            // What does not fit is asked over TCP.
            let message = match is_for(question, Family::V4) {
                true => truncated(question),
                false => reply(question, records, RCODE::NoError),
            };
            udp.send_to(b"not an answer", from).await.unwrap();
            udp.send_to(&message, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut question = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut question).await.unwrap();
            let message = reply(&question, records, RCODE::NoError);
            stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&message).await.unwrap();
        }
    });
    place
}

#[test]
fn a_listener_moves_between_one_address_and_all_at_its_port_or_stays_if_it_cannot() {
    run(async {
        let [near, far] = [echo().await.port(), echo().await.port()];
        let port = free_port().await;
        let mut proxies = Proxies::default();
        let mut listen = |hosts: &[&str], to: u16| {
            let forward = |host: &&str| format!("{host}:{port} 127.0.0.1:{to}");
            let tcp = hosts.iter().map(|host| Forward::parse(&forward(host)).unwrap());
            let udp = tcp.clone().map(|tcp| Forward { protocol: Protocol::Udp, ..tcp });
            let forwards = tcp.chain(udp).collect();
            proxies.apply(way(), Serving { forwards, ..Serving::default() })
        };
        listen(&["127.0.0.1"], near).unwrap();
        let place = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut open = TcpStream::connect(place).await.unwrap();
        open.write_all(b"before").await.unwrap();
        // Who comes later is let in later.
        assert_eq!(ask(place, b"hello").await, b"hello");
        for (hosts, is_wide) in [
            (&["0.0.0.0"][..], true),
            (&["127.0.0.1", "127.0.0.3"], false),
            (&["[::]"], true),
            (&["127.0.0.1"], false),
        ] {
            listen(hosts, far).unwrap();
            // Those who leave have their turn to do so.
            tokio::task::yield_now().await;
            assert_eq!(ask(place, b"hello").await, b"hello");
            let other = TcpStream::connect(("127.0.0.2", port)).await;
            assert_eq!(other.is_ok(), is_wide, "{hosts:?}");
        }
        let _stranger = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
        assert!(listen(&["0.0.0.0"], near).is_err());
        assert_eq!(ask(place, b"still here").await, b"still here");
        open.shutdown().await.unwrap();
        let mut heard = Vec::new();
        open.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"before");
    });
}

#[test]
fn names_are_asked_through_the_tunnel_and_the_first_address_that_answers_is_taken() {
    run(async {
        let records = &[
            ("db.example", 60, "127.0.0.9"),
            ("db.example", 60, "127.0.0.1"),
            ("db.example", 60, "::1"),
        ];
        let servers = vec![name_server(records).await];
        let resolving = Resolving { via: ResolveVia::Tunnel, servers };
        let names = Names::new(way(), resolving);
        let echo = echo().await;
        let to = HostPort::Name { host: "DB.example".to_owned(), port: echo.port() };
        let mut stream = names.dial(&to).await.unwrap().into_stream().unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        let nobody = HostPort::Name { host: "dc.example".to_owned(), port: 1 };
        assert_eq!(names.dial(&nobody).await.unwrap_err(), names::Failure::NotFound);
    });
}
