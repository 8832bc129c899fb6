//! Files of wireproxy, as its users have them.

use super::*;
use crate::control::ends::Mode;

/// An `[Interface]` and a `[Peer]` as wireproxy's users write them.
fn tunnel() -> String {
    format!("[Interface]\nAddress = 10.5.0.2\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {PEER}\n")
}

#[test]
fn all_sections_of_wireproxy_mean_what_they_mean_there() {
    let config = good(&format!(
        "{}\n[TCPClientTunnel]\nBindAddress = 127.0.0.1:25565\nTarget = play.example.net:25565\n\
         [TCPServerTunnel]\nListenPort = 3422\nTarget = localhost:25545\n\
         [UDPProxyTunnel]\nBindAddress = 127.0.0.1:53\nTarget = 10.5.0.1:53\nInactivityTimeout = 30\n\
         [STDIOTunnel]\nTarget = ssh.example.net:22\n\
         [Socks5]\nBindAddress = 127.0.0.1:25344\n#Username = ...\n\
         [http]\nbindaddress = 0.0.0.0:25345\nUsername = me\nPassword = $PW\n\
         [Socks5]\nBindAddress = localhost:25346\nUsername = me\nPassword = $$esame\n",
        tunnel()
    ));
    let ends = &config.interface.ends;
    let text: Vec<String> = ends.forward.iter().map(|it| it.value.to_string()).collect();
    assert_eq!(
        text,
        ["127.0.0.1:25565 play.example.net:25565", "127.0.0.1:53/udp 10.5.0.1:53 idle=30"]
    );
    assert_eq!(ends.expose[0].value.to_string(), "3422 127.0.0.1:25545");
    assert_eq!(
        ends.stdio.as_ref().map(|it| it.value.to_string()).as_deref(),
        Some("ssh.example.net:22")
    );
    let proxies: Vec<_> = ends.proxies.iter().map(|it| &it.value).collect();
    assert!(proxies[0].login.is_none() && proxies[0].listen.to_string() == "127.0.0.1:25344");
    let login = proxies[1].login.as_ref().unwrap();
    assert_eq!(login.passfile, Some(KeySource::Environment("PW".to_owned())));
    let login = proxies[2].login.as_ref().unwrap();
    assert!(login.password.as_ref().is_some_and(|password| password.is(b"$esame")));
    assert_eq!(
        ends.mode.map(|mode| mode.value),
        Some(Mode::Rootless),
        "it never makes an interface"
    );
    let networks: Vec<String> =
        config.merged_peers()[0].networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["0.0.0.0/0", "::/0"], "as wireproxy has it without AllowedIPs");
    let again = good(&render(&config));
    assert_eq!(*render(&again), *render(&config));
}

#[test]
fn a_client_that_wireproxy_never_forgets_is_remembered_for_a_day() {
    let config = good(&format!(
        "{}\n[UDPProxyTunnel]\nBindAddress = 127.0.0.1:53\nTarget = 10.5.0.1:53\n\
         InactivityTimeout = 0\n",
        tunnel()
    ));
    assert_eq!(config.interface.ends.forward[0].value.idle, Some(86_400));
}

#[test]
fn what_only_wireproxy_knows_means_nothing_without_its_sections() {
    assert_eq!(good(&tunnel()).peers[0].allowed_ips.as_ref().map(Vec::len), None);
    assert!(good(&tunnel()).interface.ends.mode.is_none());
    let told = interface_fault("PrivateKey = $KEY");
    assert!(told.contains("this is a placeholder"), "{told}");
    assert!(interface_fault("CheckAlive = 1.1.1.1").contains("unknown key \"CheckAlive\""));
    let text = "[Interface]\nPrivateKey = $KEY\nCheckAlive = 1.1.1.1\n[Socks5]\nBindAddress = 127.0.0.1:1\n";
    let written = parse(text, "t.conf").unwrap();
    let source = written.config.interface.private_key_file.map(|it| it.value);
    assert_eq!(source, Some(KeySource::Environment("KEY".to_owned())));
    assert_eq!(
        written.warnings[0].to_string(),
        "t.conf:3: CheckAlive has no effect: whether a tunnel is ready follows from its sessions"
    );
}

#[test]
fn faults_in_sections_of_wireproxy_name_the_line_and_the_key() {
    let fault = |text: &str| {
        let mut told = faults(text);
        assert_eq!(told.len(), 1, "{text}: {told:?}");
        told.remove(0)
    };
    for (text, told) in [
        (
            "[Socks5]\nBind = a\nBindAddress = 127.0.0.1:1",
            "t.conf:2: unknown key \"Bind\", [Socks5] takes BindAddress, Username, Password",
        ),
        ("[TCPClientTunnel]\nTarget = a:1", "t.conf:1: this [TCPClientTunnel] has no BindAddress"),
        (
            "[Socks5]\nBindAddress = 127.0.0.1:1\nUsername = a",
            "t.conf:1: this [Socks5] has no Password",
        ),
        (
            "[http]\nBindAddress = 127.0.0.1:1\nCertFile = a",
            "t.conf:3: a proxy over TLS is not supported: put what ends TLS in front of a proxy on \
             127.0.0.1",
        ),
        (
            "[Socks5]\nBindAddress = :1080",
            "t.conf:1: Socks5: everybody who reaches [::]:1080 would be let in: `user=` and \
             `passfile=` say who may, and `open=yes` that all may",
        ),
        (
            "[TCPServerTunnel]\nListenPort = x\nTarget = a:1",
            "t.conf:2: read \"x\", accepted is a port from 1 to 65535, and /udp behind it if it is \
             one of UDP",
        ),
        (
            "[STDIOTunnel]\n#hybridwg: Mode = tun\nTarget = a:1",
            "t.conf:2: belongs into [Interface] or [Peer]",
        ),
    ] {
        assert_eq!(fault(text), told, "{text}");
    }
}

#[test]
fn a_strategy_for_names_does_nothing_and_a_variable_elsewhere_is_a_fault() {
    assert_eq!(
        warnings("[Resolve]\nResolveStrategy = ipv4"),
        ["t.conf:1: [Resolve] has no effect: both families are tried"]
    );
    let proxy = "[Socks5]\nBindAddress = 127.0.0.1:1\nPassword = $PW\nUsername =";
    assert_eq!(
        faults(&format!("{proxy} $NAME\n")),
        ["t.conf:4: `$NAME` is read in PrivateKey and Password alone: write here what is meant"]
    );
    let proxies = good(&format!("{proxy} $$NAME\n")).interface.ends.proxies;
    assert_eq!(proxies[0].value.login.as_ref().map(|login| &*login.user), Some("$NAME"));
}

#[test]
fn wg_config_names_the_file_with_the_rest_and_faults_of_both_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let (own, rest) = (folder.path().join("proxy.conf"), folder.path().join("wg0.conf"));
    fs::write(&own, "WGConfig = wg0.conf\n[Socks5]\nBindAddress = 127.0.0.1:1080\n").unwrap();
    fs::write(&rest, tunnel()).unwrap();
    let config = load(&own).unwrap().config;
    assert!(config.interface.private_key.is_some() && config.peers.len() == 1);
    assert_eq!(config.interface.ends.proxies.len(), 1);
    assert_eq!(*stripped(&own).unwrap(), *tunnel().replace("Address = 10.5.0.2\n", ""));
    fs::write(&rest, "[Interface]\nMTU = x\n").unwrap();
    let Err(LoadError::Faulty { errors, .. }) = load(&own) else { panic!("accepted") };
    assert!(errors[0].to_string().starts_with(&format!("{}:2: MTU: ", rest.display())));
    fs::remove_file(&rest).unwrap();
    assert!(matches!(load(&own), Err(LoadError::Unreadable { path, .. }) if path == rest));
}
