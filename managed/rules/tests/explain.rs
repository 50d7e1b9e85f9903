//! Explanations as `peersock why` shows them.

use peersock_rules::{Compiled, End, Flow, RuleFile, Side, Subject, explain, preview, protocol};

const FILE: &str = r#"default = "deny"
[[rule]]
action = "allow"
from = "tag:web"
to = "tag:db"
protocol = "tcp"
ports = [5432, 5440]
note = "the shop"
[[rule]]
action = "deny"
from = "member:guest"
to = "*"
protocol = "*"
[[rule]]
action = "allow"
from = "tag:staff"
to = "10.1.0.0/16"
via = "tag:office"
protocol = "icmp"
"#;

const WEB: Subject<'_> = Subject { name: Some("alpha"), tags: &["web"], node: &[1; 32] };
const DB: Subject<'_> = Subject { name: Some("beta"), tags: &["db", "linux"], node: &[2; 32] };
const PLAIN: Subject<'_> = Subject { name: None, tags: &[], node: &[0xab; 32] };
const GUEST: Subject<'_> = Subject { name: Some("guest"), tags: &["web"], node: &[4; 32] };
const STAFF: Subject<'_> = Subject { name: Some("carol"), tags: &["staff"], node: &[5; 32] };
const OFFICE: Subject<'_> = Subject { name: Some("gate"), tags: &["office"], node: &[6; 32] };

fn compiled(text: &str) -> Compiled {
    Compiled::new(RuleFile::parse(text.as_bytes()).expect("a valid file").rules)
}

fn tcp<'a>(from: Subject<'a>, to: Subject<'a>, port: u16) -> Flow<'a> {
    Flow { from: End::member(from), to: End::member(to), protocol: protocol::TCP, port }
}

#[test]
fn each_answer_names_its_rule_and_what_is_missing() {
    let rules = compiled(FILE);
    let host = |gateway, host: &str| End::behind(gateway, host.parse().expect("an address"));
    let ping = |to| Flow { from: End::member(STAFF), to, protocol: protocol::ICMP, port: 0 };
    for (flow, text) in [
        (
            tcp(WEB, DB, 5432),
            "allowed: rule 1 (line 2): allow from tag:web to tag:db, tcp 5432, 5440\n  note: the shop",
        ),
        (
            tcp(GUEST, DB, 5432),
            "refused by guest: rule 2 (line 9): deny from member:guest to *, every protocol",
        ),
        (
            tcp(WEB, DB, 22),
            "refused by alpha: no rule matches, and the default is deny\n  \
             rule 1 (line 2) allows it at tcp 5432, 5440 only",
        ),
        (
            tcp(DB, DB, 5432),
            "refused by beta: no rule matches, and the default is deny\n  \
             rule 1 (line 2) allows it from tag:web only; beta has tag:db, tag:linux",
        ),
        (
            tcp(WEB, PLAIN, 5432),
            "refused by alpha: no rule matches, and the default is deny\n  \
             rule 1 (line 2) allows it to tag:db only; ababababab has no tags",
        ),
        (
            Flow { protocol: protocol::UDP, ..tcp(WEB, DB, 5432) },
            "refused by alpha: no rule matches, and the default is deny\n  rule 1 (line 2) allows it with tcp only",
        ),
        (tcp(PLAIN, DB, 1), "refused by ababababab: no rule matches, and the default is deny"),
        (
            ping(host(OFFICE, "10.1.2.3")),
            "allowed: rule 3 (line 14): allow from tag:staff to 10.1.0.0/16 via tag:office, icmp",
        ),
        (
            ping(host(OFFICE, "10.2.0.1")),
            "refused by carol: no rule matches, and the default is deny\n  \
             rule 3 (line 14) allows it to 10.1.0.0/16 only, not to 10.2.0.1 behind gate",
        ),
        (
            ping(host(DB, "10.1.2.3")),
            "refused by carol: no rule matches, and the default is deny\n  \
             rule 3 (line 14) allows it to hosts behind tag:office only; beta has tag:db, tag:linux",
        ),
        (
            ping(End::member(OFFICE)),
            "refused by carol: no rule matches, and the default is deny\n  \
             rule 3 (line 14) allows it to hosts in 10.1.0.0/16 only, not to gate itself",
        ),
    ] {
        assert_eq!(explain(&flow, &rules, &rules).to_string(), text);
    }
}

#[test]
fn the_side_that_refuses_is_named_while_rules_differ() {
    let (old, new) = (compiled(FILE), compiled(&FILE.replace("[5432, 5440]", "5440")));
    let flow = tcp(WEB, DB, 5432);
    let explained = explain(&flow, &old, &new);
    assert_eq!(explained.refuser(), Some(Side::To));
    assert!(!explained.is_allowed());
    assert_eq!(
        explained.to_string(),
        "refused by beta: no rule matches, and the default is deny\n  \
         rule 1 (line 2) allows it at tcp 5440 only\n  \
         alpha has other rules, which allow it: rule 1 (line 2): allow from tag:web to tag:db, tcp 5432, 5440"
    );
    assert_eq!(explain(&flow, &new, &old).refuser(), Some(Side::From));
    assert_eq!(explain(&flow, &old, &old).refuser(), None);
}

#[test]
fn a_default_that_allows_is_a_reason_without_a_rule() {
    let rules = compiled("default = \"allow\"");
    let text = explain(&tcp(PLAIN, DB, 1), &rules, &rules).to_string();
    assert_eq!(text, "allowed: no rule matches, and the default is allow");
}

#[test]
fn the_preview_counts_flows_and_members() {
    let (old, new) = (compiled(FILE), compiled(&FILE.replace("[5432, 5440]", "5440")));
    let flows = [tcp(WEB, DB, 5432), tcp(WEB, DB, 5440), tcp(WEB, DB, 5432)];
    assert_eq!(preview(&old, &new, flows).to_string(), "would end 2 of 3 open flows, opened by 1 member");
    assert_eq!(preview(&old, &old, flows).to_string(), "would end none of 3 open flows");
    let of = preview(&old, &new, flows[..1].iter().copied());
    assert_eq!(of.to_string(), "would end 1 of 1 open flow, opened by 1 member");
    // A flow that the present rules refuse already, and that has not ended yet.
    let refused = preview(&old, &new, [tcp(WEB, DB, 22)]);
    assert!(!refused.ended[0].before.is_allowed() && !refused.ended[0].after.is_allowed());
}
