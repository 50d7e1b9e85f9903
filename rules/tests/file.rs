//! Files as people write them, and what they are told about mistakes.

use peersock_rules::{Action, Problem, RuleFile};

const GOOD: &str = r#"
default = "deny"

[[rule]]
action = "allow"
from = ["tag:web", "member:alpha"]
to = "tag:db"
protocol = "tcp"
ports = [5432, "8000-8100"]
note = "the web servers query the database"

[[rule]]
action = "allow"
from = "tag:staff"
to = ["10.1.0.0/16", "fd00:1::/32"]
via = "tag:office"
protocol = ["tcp", "udp"]
ports = "*"

[[rule]]
action = "deny"
from = "*"
to = "member:vault"
protocol = "*"

[[test]]
from = "tag:web"
to = "tag:db"
protocol = "tcp"
port = 5432
expect = "allow"

[[test]]
from = ["tag:web", "member:beta"]
to = ["member:vault", "tag:db"]
protocol = "tcp"
port = 5432
expect = "deny"

[[test]]
from = "tag:staff"
to = "10.1.2.3"
via = "tag:office"
protocol = "udp"
port = 53
expect = "allow"

[[test]]
from = "*"
to = "tag:db"
protocol = "icmp"
expect = "deny"
"#;

#[test]
fn a_good_file_is_read_and_passes_its_tests() {
    let file = RuleFile::parse(GOOD.as_bytes()).expect("a good file");
    assert_eq!(file.warnings, []);
    assert_eq!(file.failures(), []);
    assert_eq!(file.rules.default_action(), Action::Deny);
    let texts: Vec<_> = file.rules.rules().iter().map(|rule| format!("{}: {rule}", rule.line)).collect();
    assert_eq!(
        texts,
        [
            "4: allow from tag:web, member:alpha to tag:db, tcp 5432, 8000-8100",
            "12: allow from tag:staff to 10.1.0.0/16, fd00:1::/32 via tag:office, tcp, udp",
            "20: deny from * to member:vault, every protocol",
        ]
    );
    assert_eq!(file.tests.iter().map(|test| test.line).collect::<Vec<_>>(), [26, 33, 40, 48]);
}
