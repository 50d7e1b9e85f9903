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

#[test]
fn the_reference_page_shows_a_file_and_an_error_as_they_are() {
    let page = include_str!("../../../docs/reference/RULES.md");
    let block = |kind: &str| {
        let (_, rest) = page.split_once(&format!("```{kind}\n")).expect("a block");
        rest.split("```").next().expect("its end")
    };
    let file = RuleFile::parse(block("toml").as_bytes()).expect("a good file");
    assert_eq!(file.warnings, []);
    assert_eq!(file.failures(), []);
    let wrong = block("toml").replace(
        "from = [\"tag:web\", \"member:alpha\"]\nto = \"tag:db\"",
        "from = \"tag:web\"\nto = \"web\"",
    );
    let problems = RuleFile::parse(wrong.as_bytes()).expect_err("a mistake");
    assert_eq!(problems.len(), 1);
    let shown = problems[0].to_string().replace("line 6, column 6", "rules.toml:6:6");
    assert_eq!(shown, block("text").trim_end());
}

/// A rule without faults, behind the default; `{}` is replaced.
const RULE: &str = "default = \"deny\"\n[[rule]]\naction = \"allow\"\nfrom = \"tag:web\"\nto = \"tag:db\"\nprotocol = \"tcp\"\nports = 5432\n";

const TEST: &str =
    "[[test]]\nfrom = \"tag:web\"\nto = \"tag:db\"\nprotocol = \"tcp\"\nport = 5432\nexpect = \"allow\"\n";

#[test]
fn every_mistake_has_its_place_and_a_hint() {
    let rule = |from: &str, to: &str| {
        assert!(RULE.contains(from), "{from}");
        RULE.replacen(from, to, 1)
    };
    let test = |from: &str, to: &str| {
        assert!(TEST.contains(from), "{from}");
        RULE.to_owned() + &TEST.replacen(from, to, 1)
    };
    let long = format!("note = \"{}\"\nports", "x".repeat(121));
    for (text, place, error, hint) in [
        // The file.
        (String::new(), (1, 1), "the file has no `default`", "write `default = \"deny\"`"),
        ("defualt = \"deny\"".into(), (1, 1), "no key `defualt`", "write `default`"),
        ("default = deny".into(), (1, 11), "no TOML", "quotes"),
        ("default = \"block\"".into(), (1, 11), "`block` is neither", "write `default = \"deny\"`"),
        ("default = true".into(), (1, 11), "a truth value is no text", "write `default = \"deny\"`"),
        ("default = \"deny\"\ndefault = \"deny\"".into(), (2, 1), "duplicate key", "each key once"),
        (
            rule("default = \"deny\"\n", "") + "default = \"deny\"",
            (7, 1),
            "no key `default`",
            "before the first",
        ),
        (rule("[[rule]]", "[rule]"), (2, 1), "a table and no list of tables", "`[[rule]]`"),
        (rule("[[rule]]", "[[rules]]"), (2, 3), "no key `rules`", "write `rule`"),
        ("default = \"deny\"\nrule = [7]".into(), (2, 9), "a number is no rule", "`[[rule]]`"),
        (rule("allow\"", "allow"), (3, 16), "no TOML", "quotes"),
        // A rule.
        (rule("action = \"allow\"\n", ""), (2, 1), "no `action`", "`action = \"allow\"`"),
        (rule("\"allow\"", "\"Allow\""), (3, 10), "`Allow` is neither", "\"allow\""),
        (rule("from = \"tag:web\"\n", ""), (2, 1), "no `from`", "\"*\" for every end"),
        (rule("from", "form"), (4, 1), "no key `form`", "write `from`"),
        (rule("from", "source"), (4, 1), "no key `source`", "keys action, from, to"),
        (rule("\"tag:web\"", "[]"), (4, 8), "an empty list", "\"*\" for every end"),
        (rule("\"tag:web\"", "\"web\""), (4, 8), "neither `tag:`", "`member:web`"),
        (rule("\"tag:web\"", "[\"tag:web\", \"group:x\"]"), (4, 20), "neither `tag:`", "tag:NAME"),
        (rule("\"tag:web\"", "[\"tag:web\", 7]"), (4, 20), "a number names no end", "tag:web"),
        (rule("\"tag:web\"", "[\"*\", \"tag:web\"]"), (4, 8), "not alone", "leave the others out"),
        (rule("\"tag:web\"", "[[\"tag:web\"]]"), (4, 9), "a list cannot be here", "tag:web"),
        (rule("\"tag:web\"", "\"tag:bü cher\""), (4, 8), "has the character", "letters"),
        (rule("\"tag:db\"", "\"10.1.0.5/16\""), (5, 6), "bits behind", "10.1.0.0/16"),
        (rule("protocol = \"tcp\"\n", ""), (2, 1), "no `protocol`", "\"*\" for every one"),
        (rule("\"tcp\"", "\"TCP\""), (6, 12), "no protocol", "write \"tcp\""),
        (rule("\"tcp\"", "\"6\""), (6, 12), "no protocol", "without quotes"),
        (rule("\"tcp\"", "256"), (6, 12), "0 to 255", "\"tcp\""),
        (rule("\"tcp\"", "\"icmp\""), (7, 9), "only TCP and UDP", "without `ports`"),
        (rule("\"tcp\"", "\"*\""), (7, 9), "only TCP and UDP", "[\"tcp\", \"udp\"]"),
        (rule("ports = 5432\n", ""), (2, 1), "no `ports`", "\"*\" for all"),
        (rule("5432", "[]"), (7, 9), "an empty list", "\"*\" for all"),
        (rule("5432", "0"), (7, 9), "no port", "1 to 65535"),
        (rule("5432", "-5"), (7, 9), "no port", "1 to 65535"),
        (rule("5432", "[80, 65536]"), (7, 14), "no port", "1 to 65535"),
        (rule("5432", "5432.0"), (7, 9), "a number with a fraction", "8000-8100"),
        (rule("5432", "\"9-8\""), (7, 9), "ends before it begins", "\"8-9\""),
        (rule("5432", "\"http\""), (7, 9), "no port", "8000-8100"),
        (rule("ports", "port"), (7, 1), "no key `port`", "write `ports`"),
        (rule("ports", "via = \"tag:x\"\nports"), (7, 7), "`via` matches nothing", "10.1.0.0/16"),
        (rule("ports", "via = []\nports"), (7, 7), "an empty list", "leave `via` out"),
        (rule("ports", "via = \"*\"\nports"), (7, 7), "every gateway", "leave the line out"),
        (rule("ports", "via = \"10.0.0.0/8\"\nports"), (7, 7), "a gateway is a member", "tag:office"),
        (
            rule("\"tag:db\"", "[\"tag:db\", \"10.0.0.0/8\"]\nvia = \"tag:x\""),
            (6, 7),
            "members are in one",
            "two rules",
        ),
        (rule("ports", "note = \"\"\nports"), (7, 8), "the note is empty", "leave the line out"),
        (rule("ports", &long), (7, 8), "the note has 121 bytes", "comments"),
        (rule("ports", "note = \"a\\nb\"\nports"), (7, 8), "control characters", "one line"),
        (rule("ports", "note = 7\nports"), (7, 8), "a number is no text", "note = "),
        // A test.
        (test("expect = \"allow\"\n", ""), (8, 1), "the test has no `expect`", "expect = "),
        (test("expect", "expects"), (13, 1), "no key `expects`", "write `expect`"),
        (test("\"tag:web\"", "\"10.0.0.0/8\""), (9, 8), "one host", "an address behind"),
        (test("\"tag:web\"", "[\"member:a\", \"member:b\"]"), (9, 21), "two names", "a member with both"),
        (test("\"tag:web\"", "[\"10.0.0.1\"]"), (9, 9), "no member", "alone"),
        (test("\"tcp\"", "[\"tcp\"]"), (11, 12), "one protocol", "\"tcp\""),
        (test("\"tcp\"", "\"*\""), (11, 12), "one protocol", "\"tcp\""),
        (test("\"tcp\"", "\"icmp\""), (12, 8), "has no ports", "leave the line out"),
        (test("port = 5432\n", ""), (8, 1), "no `port`", "port = 5432"),
        (test("5432", "[5432]"), (12, 8), "a list is no port", "port = 5432"),
        (test("port", "via = \"tag:x\"\nport"), (12, 7), "`via` needs an address", "tag:office"),
    ] {
        let problems = RuleFile::parse(text.as_bytes()).expect_err(&text);
        let found = problems.iter().find(|problem| (problem.line, problem.column) == place);
        let Some(Problem { text: what, hint: way_out, .. }) = found else {
            panic!("no error at {place:?} in\n{text}\n{problems:?}")
        };
        assert!(what.contains(error), "{text}\n{what}");
        assert!(way_out.contains(hint), "{text}\n{way_out}");
        assert!(!what.ends_with('.') && !way_out.ends_with('.'), "{what}; {way_out}");
    }
}

#[test]
fn all_mistakes_are_named_at_once_in_their_order() {
    let text = RULE.replace("tag:web", "web").replace("5432", "0").replace("deny", "block");
    let problems = RuleFile::parse(text.as_bytes()).expect_err("three mistakes");
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [1, 4, 7]);
    assert_eq!(
        problems[1].to_string(),
        "line 4, column 8: `web` is neither `tag:`, `member:` nor `node:`\n\
         hint: write `member:web` for the member with this name, or `tag:web`"
    );
    let many = "default = \"deny\"\n".to_owned() + &"[[rule]]\n".repeat(900);
    assert_eq!(RuleFile::parse(many.as_bytes()).expect_err("mistakes").len(), 20);
}

#[test]
fn numbers_have_all_forms_of_toml() {
    let text = RULE.replace("5432", "[5_432, 0x50, 0o17, 0b1, +7]").replace("\"tcp\"", "[0x06, \"udp\", 6]");
    let file = RuleFile::parse(text.as_bytes()).expect("a valid file");
    assert_eq!(
        file.rules.rules()[0].to_string(),
        "allow from tag:web to tag:db, tcp, udp 1, 7, 15, 80, 5432"
    );
}

#[test]
fn limits_are_errors_with_places() {
    let rules = |count: usize, note: &str| {
        let rule = RULE.trim_start_matches("default = \"deny\"\n");
        "default = \"deny\"\n".to_owned() + &(rule.to_owned() + &format!("note = \"{note}\"\n")).repeat(count)
    };
    assert!(RuleFile::parse(rules(1_000, "x").as_bytes()).is_ok());
    let problems = RuleFile::parse(rules(1_001, "x").as_bytes()).expect_err("too many");
    assert_eq!(problems[0].text, "the file has 1001 rules; 1000 are allowed");
    assert_eq!(problems[0].line, 2 + 1_000 * 7);
    let problems = RuleFile::parse(rules(1_000, &"x".repeat(70)).as_bytes()).expect_err("too long");
    assert!(problems[0].text.contains("as members receive them; 65536 are allowed"), "{}", problems[0]);
    let tests = "default = \"deny\"\n".to_owned() + &TEST.replace("allow", "deny").repeat(1_001);
    let problems = RuleFile::parse(tests.as_bytes()).expect_err("too many");
    assert!(problems[0].text.contains("1001 tests"), "{}", problems[0]);
    let comment = format!("# {}\ndefault = \"deny\"", "x".repeat(RuleFile::MAX_LEN));
    assert!(
        RuleFile::parse(comment.as_bytes()).expect_err("too long")[0].text.contains("262144 are allowed")
    );
    let lines = format!("default = \"deny\"{}", "\n".repeat(RuleFile::MAX_LINES + 1));
    assert!(RuleFile::parse(lines.as_bytes()).expect_err("too long")[0].text.contains("65535 are allowed"));
    let lines = format!("default = \"deny\"{}", "\n".repeat(RuleFile::MAX_LINES));
    assert!(RuleFile::parse(lines.as_bytes()).is_ok());
    let list = vec!["\"tag:a\""; 65].join(", ");
    let problems = RuleFile::parse(RULE.replace("\"tag:web\"", &format!("[{list}]")).as_bytes());
    assert!(problems.expect_err("too long")[0].text.contains("the list has 65 items; 64 are allowed"));
    let numbers: Vec<_> = (100..163).map(|number| number.to_string()).collect();
    let protocols = format!("[\"icmp\", {}]", numbers.join(", "));
    let text = RULE.replace("\"tcp\"", &protocols).replace("ports = 5432\n", "");
    let problems = RuleFile::parse(text.as_bytes()).expect_err("too long");
    assert_eq!((problems[0].line, problems[0].column), (6, 12), "{}", problems[0]);
}

#[test]
fn files_that_cost_the_reader_most_are_read_within_limits() {
    for text in [
        "[".repeat(200_000),
        format!("a = {}", "[".repeat(200_000)),
        format!("a{} = 1", ".a".repeat(100_000)),
    ] {
        assert!(RuleFile::parse(text.as_bytes()).is_err());
    }
    // Rules that are equal but for the last block of a long list.
    let blocks = |at: usize| {
        (0..15).map(move |block| format!("\"10.{block}.0.0/16\"")).chain([format!(
            "\"11.{}.{}.0/24\"",
            at / 250,
            at % 250
        )])
    };
    let rule = |at: usize| {
        let to = blocks(at).collect::<Vec<_>>().join(", ");
        format!("[[rule]]\naction = \"allow\"\nfrom = \"*\"\nto = [{to}]\nprotocol = \"*\"\n")
    };
    let text = format!("default = \"deny\"\n{}", (0..600).map(rule).collect::<String>());
    assert_eq!(RuleFile::parse(text.as_bytes()).expect("a valid file").warnings, []);
}

#[test]
fn a_file_of_another_encoding_is_an_error_with_its_place() {
    let problems =
        RuleFile::parse(b"default = \"deny\"\n# B\xc3\xbccher, B\xfccher\n").expect_err("no UTF-8");
    assert_eq!((problems[0].line, problems[0].column), (2, 12));
    assert!(problems[0].hint.contains("UTF-8"));
    let marked = RuleFile::parse("\u{feff}default = \"deny\"\r\n".as_bytes());
    assert!(marked.is_ok(), "{marked:?}");
}

#[test]
fn rules_without_effect_are_warnings() {
    let deny = RULE.replace("default = \"deny\"\n", "").replace("\"allow\"", "\"deny\"");
    for (text, place, warning) in [
        (RULE.replace("default = \"deny\"", "default = \"allow\""), (2, 1), "the default is allow"),
        (RULE.to_owned() + &deny, (2, 1), "rule 2 (line 8) denies all that it allows"),
        (RULE.to_owned() + &deny.replace("tag:db", "*"), (2, 1), "rule 2 (line 8) denies"),
        (
            RULE.to_owned() + RULE.trim_start_matches("default = \"deny\"\n"),
            (8, 1),
            "rule 1 (line 2) has the same",
        ),
        (
            RULE.to_owned()
                + &RULE.replace("default = \"deny\"\n", "").replace("5432", "[80, \"5000-6000\"]"),
            (2, 1),
            "rule 2 (line 8) has the same",
        ),
    ] {
        let file = RuleFile::parse(text.as_bytes()).expect("a valid file");
        assert_eq!(file.warnings.len(), 1, "{text}\n{:?}", file.warnings);
        assert_eq!((file.warnings[0].line, file.warnings[0].column), place, "{text}");
        assert!(file.warnings[0].text.contains(warning), "{}", file.warnings[0]);
    }
    let narrower = RULE.to_owned() + &deny.replace("tag:db", "member:vault");
    assert_eq!(RuleFile::parse(narrower.as_bytes()).expect("a valid file").warnings, []);
}

#[test]
fn tests_that_fail_name_the_deciding_rule() {
    let text = format!("{RULE}{}{}", TEST.replace("allow", "deny"), TEST.replace("5432", "22"));
    let failures = RuleFile::parse(text.as_bytes()).expect("a valid file").failures();
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "line 8: the test expects deny for tcp from tag:web to tag:db, port 5432, but rule 1 (line 2) decides: \
             allow from tag:web to tag:db, tcp 5432",
            "line 14: the test expects allow for tcp from tag:web to tag:db, port 22, but no rule matches, and the \
             default is deny",
        ]
    );
}

#[test]
fn a_test_of_icmp_is_about_both_versions() {
    let rule = RULE.replace("\"tcp\"", "1").replace("ports = 5432\n", "");
    let test = TEST.replace("\"tcp\"", "\"icmp\"").replace("port = 5432\n", "");
    let failures = RuleFile::parse((rule.clone() + &test).as_bytes()).expect("a valid file").failures();
    assert!(failures[0].to_string().contains("for icmp of IPv6 from"), "{}", failures[0]);
    let both = rule.replace("protocol = 1", "protocol = \"icmp\"") + &test;
    assert_eq!(RuleFile::parse(both.as_bytes()).expect("a valid file").failures(), []);
}
