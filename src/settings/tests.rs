//! Each setting has its effect or its error, and other lists of settings agree with the table.

use std::collections::BTreeSet;
use std::fs;

use serde_json::json;

use super::*;
use crate::{Dht, Node};

const ROOT: &str = "dns:example.org";

/// Returns each setting with a value, and the same settings as the builder's own methods make them.
fn examples() -> Vec<(&'static str, Value, NodeBuilder)> {
    let node = Node::builder;
    let roots = || RootSource::load("lan dns:example.org").expect("two roots");
    vec![
        ("state", json!("/s"), node().identity(IdentitySource::StateDir("/s".into()))),
        ("seed", json!("0A".repeat(32)), node().identity(IdentitySource::Seed(Seed([10; 32])))),
        ("interfaces", json!("a, b"), node().interfaces(Interfaces::Named(vec!["a".into(), "b".into()]))),
        ("port", json!(65535), node().port(65535)),
        ("discovery_port", json!(7), node().discovery_port(7)),
        ("discovery", json!(false), node().discovery(false)),
        ("introduce", json!(false), node().introduce(false)),
        ("roots", json!(["lan", ROOT]), node().roots(roots())),
        ("dht", json!("public"), node().dht(Dht::Public)),
        ("turn", json!("turn:u:p@h"), node().turn(load_turn_servers("turn:u:p@h").expect("a server"))),
        ("stun", json!(["h:1", "i:2"]), node().stun(load_stun_servers("h:1 i:2").expect("two servers"))),
        ("port_mapping", json!(false), node().port_mapping(false)),
        ("birthday", json!(false), node().birthday(false)),
        ("tcp_punch", json!(false), node().tcp_punch(false)),
        ("busy_poll", json!(10_000), node().busy_poll(Duration::from_millis(10))),
        ("only_suite", json!("AES-256-GCM"), node().only_suite(Suite::Aes256Gcm)),
        ("tcp_buffers", json!([1, 2]), node().tcp_buffers(1, 2)),
    ]
}

fn names() -> BTreeSet<&'static str> {
    SETTINGS.iter().map(|setting| setting.name).collect()
}

#[test]
fn each_setting_has_the_effect_of_its_method() {
    let examples = examples();
    assert_eq!(examples.iter().map(|(name, ..)| *name).collect::<BTreeSet<_>>(), names());
    assert_eq!(names().len(), SETTINGS.len());
    for (name, value, expected) in examples {
        let node = Node::builder().set(name, value).expect(name);
        assert_eq!(format!("{node:?}"), format!("{expected:?}"), "{name}");
    }
}

#[test]
fn settings_of_an_object_are_applied_together() {
    let text = r#"{"discovery": false, "discovery_port": 7, "interfaces": ["loopback"], "roots": ""}"#;
    let node = Node::builder().settings(serde_json::from_str(text).expect("JSON")).expect("settings");
    let expected = Node::builder().interfaces(Interfaces::Loopback).discovery(false);
    let expected = expected.roots(Vec::<RootSource>::new());
    // The port of a discovery that is off has no effect.
    assert_eq!(format!("{node:?}"), format!("{expected:?}"));
}

#[test]
fn wrong_values_are_refused_with_the_name_and_what_is_allowed() {
    for (name, value, says) in [
        ("state", json!(5), "not a text"),
        ("state", json!("a\0"), "without zeros"),
        ("seed", json!("0".repeat(63)), "64 hexadecimal digits"),
        ("seed", json!("g".repeat(64)), "64 hexadecimal digits"),
        ("interfaces", json!(""), "`loopback`"),
        ("interfaces", json!([]), "`loopback`"),
        ("interfaces", json!("a,"), "`loopback`"),
        ("port", json!(65536), "a number from 0 to 65535"),
        ("port", json!("80"), "a number from 0 to 65535"),
        ("discovery_port", json!(-1), "a number from 0 to 65535"),
        ("discovery", json!(1), "true or false"),
        ("introduce", json!("no"), "true or false"),
        ("roots", json!("nonsense"), "KEY@HOST:PORT"),
        ("roots", json!(["lan", 5]), "not a text"),
        ("dht", json!("somewhere"), "IPV4:PORT"),
        ("turn", json!(null), "not a text"),
        ("turn", json!("turn:u:\u{fffd}@h"), "UTF-8"),
        ("stun", json!("one"), "HOST:PORT"),
        ("port_mapping", json!(null), "true or false"),
        ("birthday", json!(0), "true or false"),
        ("tcp_punch", json!([]), "true or false"),
        ("busy_poll", json!(10_001), "a number from 0 to 10000"),
        ("busy_poll", json!(0.5), "a number from 0 to 10000"),
        ("only_suite", json!("AES"), "AES-256-GCM or ChaCha20-Poly1305"),
        ("tcp_buffers", json!([0, 1]), "two numbers from 1"),
        ("tcp_buffers", json!([1, 1, 1]), "two numbers from 1"),
        ("nonsense", json!(1), "no such setting"),
    ] {
        let error = Node::builder().set(name, value).expect_err(name).to_string();
        assert!(error.starts_with(&format!("'{name}': ")) && error.contains(says), "{error}");
    }
    let both = json!({"state": "x", "seed": "0".repeat(64)});
    let error = Node::builder().settings(both.as_object().expect("an object").clone());
    assert!(error.expect_err("two identities").to_string().contains("either in a state directory"));
}

#[test]
fn errors_do_not_repeat_passwords() {
    let error = Node::builder().set("turn", "sesame").expect_err("no server");
    assert!(!format!("{error} {error:?}").contains("sesame"));
}

#[test]
fn each_method_of_the_builder_is_a_setting() {
    let source = include_str!("../node/builder.rs");
    let setters = source.lines().filter_map(|line| line.strip_prefix("    pub fn ")?.split_once("(mut self"));
    // The identity is two settings, and the next two methods undo one. A label is for one program, so every
    // language reads it from a variable alone.
    let others = ["identity", "roots_of_environment", "turn_of_environment", "beside", "label"];
    let setters: BTreeSet<_> = setters.map(|(name, _)| name).filter(|name| !others.contains(name)).collect();
    let settings: BTreeSet<_> =
        names().into_iter().filter(|name| !["state", "seed"].contains(name)).collect();
    assert_eq!(setters, settings);
}

/// Returns a line of the documentation.
fn line(setting: &Setting) -> String {
    let variable = setting.variable.map_or(String::new(), |variable| format!("`{variable}`"));
    let option = setting.option.map_or(String::new(), |option| format!("`--{option}`"));
    let (name, allowed) = (setting.name, setting.allowed());
    format!("| `{name}` | {allowed} | {} | {variable} | {option} | {} |", setting.default, setting.doc)
}

/// `PEERSOCK_WRITE_SETTINGS=1 cargo test -p peersock --lib settings` writes the table anew.
#[test]
fn the_documentation_has_the_same_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/SETTINGS.md");
    let text = fs::read_to_string(path).expect("the page");
    let lines: Vec<_> = SETTINGS.iter().map(line).collect();
    let documented: Vec<_> = text.lines().filter(|line| line.starts_with("| `")).collect();
    if std::env::var_os("PEERSOCK_WRITE_SETTINGS").is_some() {
        let (before, after) = text.split_once("|---|---|---|---|---|---|\n").expect("the table");
        let after: String = after
            .lines()
            .skip_while(|line| line.starts_with('|'))
            .fold(String::new(), |text, line| text + line + "\n");
        let table = lines.join("\n");
        let text = format!("{before}|---|---|---|---|---|---|\n{table}\n{after}");
        fs::write(path, text).expect("the page is written");
    } else {
        assert_eq!(documented, lines);
    }
}
