//! What wg-quick(8) reads of `[Interface]`.

use super::*;

#[test]
fn wq_09_addresses_are_separated_by_commas_or_spaces_and_need_no_length() {
    let addresses = interface(
        "Address = 10.0.0.1/24, fd00::1/64 192.0.2.7\nAddress = 2001:db8::7,\nAddress =\n",
    )
    .addresses;
    assert_eq!(addresses, nets(&["10.0.0.1/24", "fd00::1/64", "192.0.2.7/32", "2001:db8::7/128"]));
    for value in ["10.0.0", "10.0.0.1/33", "fd00::1/129", "10.0.0.1/", "host", "10.0.0.1/+8"] {
        assert!(interface_fault(&format!("Address = {value}")).contains("Address: read"));
    }
}

#[test]
fn wq_10_dns_tells_name_servers_from_search_domains() {
    let dns = interface("DNS = 10.0.0.1, corp.example\nDNS = fd00::53 2.example").dns;
    let values: Vec<Dns> = dns.iter().map(|entry| entry.value.clone()).collect();
    assert_eq!(
        values,
        [
            Dns::Server([10, 0, 0, 1].into()),
            Dns::SearchDomain("corp.example".into()),
            Dns::Server("fd00::53".parse().unwrap()),
            Dns::SearchDomain("2.example".into()),
        ]
    );
    assert_eq!(dns[2].line, 3);
    for value in ["10.0.0", "fd00:::1", "ex$ample", "-x", "a..b"] {
        assert!(interface_fault(&format!("DNS = {value}")).contains("DNS: read"), "{value}");
    }
}

#[test]
fn wq_11_the_last_mtu_and_table_win() {
    let lines = interface("MTU = 1300\nMTU = 1400\nTable = off\nTable = 1234");
    assert_eq!(lines.mtu, Some(1400));
    assert_eq!(lines.table.map(|table| (table.line, table.value)), Some((5, Table::Number(1234))));
    for (text, mtu) in [("68", 68), ("65535", 65535)] {
        assert_eq!(interface(&format!("MTU = {text}")).mtu, Some(mtu));
    }
    for text in ["", "67", "65536", "0", "1420 bytes", "-1", "+1420"] {
        assert!(interface_fault(&format!("MTU = {text}")).contains("from 68 to 65535"), "{text}");
    }
}

#[test]
fn wq_11_a_table_is_auto_off_a_number_or_a_name() {
    for (text, table) in [
        ("auto", Table::Auto),
        ("OFF", Table::Off),
        ("4294967295", Table::Number(u32::MAX)),
        ("main", Table::Name("main".into())),
        ("my-table_1", Table::Name("my-table_1".into())),
    ] {
        assert_eq!(interface(&format!("Table = {text}")).table.unwrap().value, table);
    }
    for text in ["", "0", "4294967296", "1a", "a b", "a/b"] {
        assert!(interface_fault(&format!("Table = {text}")).contains("Table: read"), "{text}");
    }
}

#[test]
fn wq_11_save_config_is_true_or_false_in_any_case() {
    for (text, value) in [("true", true), ("False", false), ("TRUE", true)] {
        let save = interface(&format!("SaveConfig = {text}")).save_config;
        assert_eq!(save.map(|save| save.value), Some(value));
    }
    for text in ["", "yes", "1", "true false"] {
        let fault = interface_fault(&format!("SaveConfig = {text}"));
        assert!(fault.ends_with("accepted is true or false"), "{fault}");
    }
}

#[test]
fn wq_12_hooks_keep_their_order_and_what_looks_like_a_comment() {
    let hooks = interface(
        "PostUp = echo '#x' = %i # y\npostup=second\nPreUp = a\nPreDown = b\nPostDown = c\n\
         # PostUp = commented out\n",
    );
    assert_eq!(hooks.post_up, ["echo '#x' = %i # y", "second"]);
    assert_eq!((hooks.pre_up, hooks.pre_down), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(hooks.post_down, ["c"]);
    assert!(interface_fault("PostUp =").contains("read nothing, accepted is a command"));
}
