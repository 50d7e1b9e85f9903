use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use hex_literal::hex;
use peersock_overlay::Identity;
use proptest::prelude::*;

use super::*;
use crate::state::StateError;

#[test]
fn a_whole_file_comes_out_as_written() {
    let text = format!(
        r#"
        network = "fe00000000000001"
        roots = ["dns:Example.org", "lan"]
        [[member]]
        key = "{}"
        name = "Alpha-1"
        addresses = ["10.7.0.1", "2001:db8::1"]
        endpoints = ["192.0.2.7:7420", "alpha.Example.org:7420", "[2001:db8::7]:7420"]
        [[member]]
        key = "{}"
        "#,
        key(1),
        key(2)
    );
    let whole = Network::parse_toml(&text).unwrap();
    let hosts = |member: usize| whole.host_endpoints(&whole.members()[member].identity);
    assert_eq!(hosts(0).iter().map(ToString::to_string).collect::<Vec<_>>(), ["alpha.example.org:7420"]);
    assert!(hosts(1).is_empty());
    assert_eq!(whole.roots().iter().map(ToString::to_string).collect::<Vec<_>>(), ["dns:example.org", "lan"]);
    assert_eq!(Network::from_portable(&whole.to_portable()).unwrap().roots(), whole.roots());
    let network = parse(&text);
    assert_eq!(network.id().to_string(), "fe00000000000001");
    assert!(network.psk().is_none());
    let [first, second] = network.members() else { panic!("two members expected") };
    assert_eq!(first.identity.to_string(), key(1));
    assert_eq!(first.name.as_deref(), Some("alpha-1"), "names compare without case");
    assert_eq!(first.addresses.len(), 2);
    assert_eq!(first.endpoints[1], "[2001:db8::7]:7420".parse().unwrap());
    let alpha = whole.addresses_named("ALPHA-1");
    assert_eq!(Some(alpha), whole.addresses_of(&first.identity));
    assert_eq!(whole.addresses_named("beta"), [] as [IpAddr; 0]);
    let endpoints = ["192.0.2.7:7420", "[2001:db8::7]:7420", "alpha.example.org:7420"];
    assert_eq!(whole.endpoints_of(&first.identity), endpoints);
    assert!(second.name.is_none() && second.addresses.is_empty() && second.endpoints.is_empty());
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let cases = [
        ("".into(), 1, "network"),
        ("network = \"fe00000000000001\"".into(), 1, "no [[member]]"),
        ("\n\nnetwork = 5".into(), 3, "string"),
        ("network = \"fe0000000000001\"".into(), 1, "16"),
        ("network = \"ff0001ffff000000\"".into(), 1, "begins with fe"),
        ("network = \"fe00000000000001\"\nnonsense = 1".into(), 2, "nonsense"),
        ("network = \"fe00000000000001\"\n[[member]]\n".into(), 2, "key"),
        ("network = \"fe00000000000001\"\n[[member]]\nkey = \"abc\"".into(), 3, "key"),
        ("network = \"fe00000000000001\"\npassphrase = \"\"".into(), 2, "empty"),
        ("network = \"fe00000000000001\"\nroots = [\n\"lan\",\n\"nowhere\"]".into(), 4, "a root is written"),
        ("network = \"fe00000000000001\"\nroots = [\"@file\"]".into(), 2, "the key of the root is wrong"),
        (
            format!("network = \"fe00000000000001\"\nroots = [\"{}@192.0.2.1:7420?token=x\"]", key(1)),
            2,
            "--root-token-file",
        ),
        ("network = \"fe00000000000001\"\npsk = \"00\"".into(), 2, "64"),
        ("network = \"fe00000000000001\"\npassphrase = \"a\"\npsk = \"00\"".into(), 3, "not both"),
        ("network = \"fe00000000000001\"\n[[member]\n".into(), 2, ""),
        (two("", &format!("[[member]]\nkey = \"{}\"", key(1))), 8, "twice, in members number 1 and number 3"),
        (two("name = \"a\"", "name = \"A\""), 7, "twice, in members number 1 (`a`) and number 2 (`A`)"),
        (two("name = \"a b\"", ""), 4, "hyphens"),
        (two("name = \"-a\"", ""), 4, "hyphens"),
        (two("name = \"\"", ""), 4, "hyphens"),
        (two("name = \"123\"", ""), 4, "take for an address"),
        (two("name = \"0x7F\"", ""), 4, "take for an address"),
        (
            two("addresses = [\"10.0.0.1\"]", "addresses = [\"10.0.0.1\"]"),
            7,
            "twice, in members number 1 and number 2",
        ),
        (two("addresses = [\n\"10.0.0.1\",\n\"10.0.0.256\"]", ""), 6, "not an IP address"),
        (two("addresses = [\"127.0.0.1\"]", ""), 4, "cannot be"),
        (two("addresses = [\"0.0.0.0\"]", ""), 4, "cannot be"),
        (two("addresses = [\"224.0.0.1\"]", ""), 4, "cannot be"),
        (two("addresses = [\"fe80::1\"]", ""), 4, "cannot be"),
        (two("addresses = [\"::ffff:10.0.0.1\"]", ""), 4, "cannot be"),
        (two(&format!("addresses = [\"{}\"]", own_address(1)), ""), 4, "belong to keys"),
        (two("endpoints = [\"192.0.2.1\"]", ""), 4, "HOST:PORT"),
        (two("endpoints = [\"example.org\"]", ""), 4, "HOST:PORT"),
        (two("endpoints = [\"192.0.2.256:1\"]", ""), 4, "HOST:PORT"),
        (two("endpoints = [\"a.example:9\", \"A.example:9\"]", ""), 4, "twice"),
        (two("endpoints = [\"192.0.2.1:0\"]", ""), 4, "cannot be sent to|can be sent to"),
        (two("endpoints = [\"255.255.255.255:9\"]", ""), 4, "can be sent to"),
        (two("endpoints = [\"239.9.9.9:9\"]", ""), 4, "can be sent to"),
        (two("endpoints = [\"192.0.2.1:9\", \"192.0.2.1:9\"]", ""), 4, "twice, in member number 1"),
        (two("endpoint = []", ""), 4, "endpoint"),
        (two("routes = [\"0.0.0.0/1\"]", ""), 4, "make an exit"),
        (two("routes = [\"10.0.0.1/0\"]", ""), 4, "the block is 0.0.0.0/0"),
        (two("routes = [\"::/0\", \"0.0.0.0/0\", \"::/0\"]", ""), 4, "`::/0` is given twice"),
    ];
    for (text, line, wanted) in cases {
        let error = Network::parse_toml(&text).unwrap_err();
        let ConfigError::Invalid { line: found, what } = &error else { panic!("{text}: {error}") };
        assert_eq!(*found, line, "{text}\n{error}");
        assert!(wanted.split('|').any(|wanted| what.contains(wanted)), "{text}\n{error}");
    }
}

#[test]
fn several_members_may_be_exits() {
    let network =
        Network::parse_toml(&two("routes = [\"0.0.0.0/0\", \"::/0\"]", "routes = [\"0.0.0.0/0\"]")).unwrap();
    let exits: Vec<_> = network.members().iter().map(|member| (member.exit.ipv4, member.exit.ipv6)).collect();
    assert_eq!(exits, [(true, true), (true, false)]);
    assert!(network.members().iter().all(|member| member.routes.is_empty()));
    // The overlay's addresses, as others see them, are unchanged.
    assert_eq!(network.summary().prefixes, Network::parse_toml(&two("", "")).unwrap().summary().prefixes);
}

#[test]
fn a_secret_is_not_quoted_in_errors() {
    let text = "network = \"fe00000000000001\"\npassphrase = \"hunter2 hunter2\"\n[[member]]\nkey = 1";
    assert!(!Network::parse_toml(text).unwrap_err().to_string().contains("hunter2"));
    let text = "network = \"fe00000000000001\"\npassphrase = \"hunter2\" hunter2\n";
    assert!(!Network::parse_toml(text).unwrap_err().to_string().contains("hunter2"));
}

#[test]
fn a_file_with_a_secret_must_be_private_and_one_without_need_not_be() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.toml");
    let open = format!("network = \"fe00000000000001\"\n[[member]]\nkey = \"{}\"\n", key(1));

    fs::write(&path, &open).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(!Network::from_file(&path).unwrap().is_secret());
    // An attacker who can add a member can join.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).unwrap();
    let error = Network::from_file(&path).unwrap_err();
    assert!(matches!(error, ConfigError::File(StateError::Changeable { mode: 0o646, .. })), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();

    fs::write(&path, format!("passphrase = \"x\"\n{open}")).unwrap();
    let error = Network::from_file(&path).unwrap_err();
    assert!(matches!(error, ConfigError::File(StateError::Exposed { .. })), "{error}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Network::from_file(&path).unwrap().is_secret());

    fs::write(&path, "network = 1").unwrap();
    let text = Network::from_file(&path).unwrap_err().to_string();
    assert!(text.contains("network.toml:1: "), "{text}");
}

#[test]
fn passphrases_give_one_key_per_network() {
    let psk = |id: &str, passphrase: &str| {
        let network = Network::ad_hoc(id.parse().unwrap()).with_passphrase(passphrase).unwrap();
        network.into_config().psk().unwrap().clone()
    };
    let key = psk("ff0001ffff000000", "correct horse");
    assert_eq!(key, Psk::new(PASSPHRASE_VECTOR));
    assert_ne!(key, psk("ff0001ffff000000", "correct horsf"));
    assert_ne!(key, psk("ff0001fffe000000", "correct horse"));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "(network|passphrase|psk|\\[\\[member\\]\\]|key|name|=|\"|fe|\\[|\\]|\n|[0-9a-z.: ]){0,60}") {
        let _ = Network::parse_toml(&text);
    }
}

/// Computed with another implementation of Argon2id, that of OpenSSL 3.
const PASSPHRASE_VECTOR: [u8; 32] = hex!("5c4e7ef3952583cf192aed1f6a4dda2e961d18970e5b2ce154e7152062d88e28");

fn key(seed: u8) -> String {
    Identity::from_seed(&[seed; 32]).public().to_string()
}

/// Returns the file of a network of two members, with these fields.
fn two(first: &str, second: &str) -> String {
    format!(
        "network = \"fe00000000000001\"\n[[member]]\nkey = \"{}\"\n{first}\n[[member]]\nkey = \"{}\"\n{second}\n",
        key(1),
        key(2)
    )
}

fn own_address(seed: u8) -> String {
    let id = Identity::from_seed(&[seed; 32]).public().node_id();
    let network: NetworkId = "fe00000000000001".parse().unwrap();
    network.address_of(&id).to_string()
}

fn parse(text: &str) -> NetworkConfig {
    Network::parse_toml(text).unwrap().into_config()
}

#[test]
fn the_example_of_the_documentation_is_a_network() {
    let page = include_str!("../../docs/use/NETWORKS.md");
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let network = Network::parse_toml(example).unwrap();
    assert!(network.is_secret() && network.members().len() == 2);
    for field in ["passphrase", "psk", "key", "name", "addresses", "endpoints", "network", "[[member]]"] {
        assert!(page.contains(&format!("| `{field}` |")), "{field}");
    }
}
