//! `peersock network rules`.

use std::path::Path;

use serde_json::Value;

use crate::common::{Finished, peersock, run, write_file};

const GOOD: &str = "default = \"deny\"\n\n[[rule]]\naction = \"allow\"\nfrom = \"tag:web\"\nto = \"tag:db\"\n\
                    protocol = \"tcp\"\nports = 5432\n\n[[test]]\nfrom = \"tag:web\"\nto = \"tag:db\"\n\
                    protocol = \"tcp\"\nport = 5432\nexpect = \"allow\"\n";

#[test]
fn a_good_file_passes_its_tests() {
    let checked = check(GOOD, &[]).success();
    assert!(checked.text().contains("default deny, 1 rule, 1 of 1 test passed"), "{}", checked.text());
    let json = json(&check(GOOD, &["--json"]).success());
    assert_eq!((&json["valid"], &json["passed"], &json["rules"]), (&true.into(), &true.into(), &1.into()));
    assert_eq!(json["warnings"], serde_json::json!([]));
}

#[test]
fn mistakes_are_shown_with_line_column_and_hint() {
    let wrong = GOOD.replace("tag:web", "web").replace("5432\n\n", "0\n\n");
    let checked = check(&wrong, &[]);
    checked.failure(
        1,
        &[
            "rules.toml:5:8: `web` is neither `tag:`, `member:` nor `node:`\n",
            "hint: write `member:web` for the member with this name, or `tag:web`\n",
            "rules.toml:8:9: this is no port\n",
            "rules.toml is no valid file of rules\nhint: correct the file",
        ],
    );
    assert_eq!(checked.text(), "");
    let checked = check(&wrong, &["--json"]);
    checked.failure(1, &[]);
    assert_eq!(checked.stderr, "");
    let json = json(&checked);
    assert_eq!((&json["valid"], &json["errors"][0]["line"]), (&false.into(), &5.into()));
    assert_eq!(json["errors"][0]["column"], 8);
}

#[test]
fn failing_tests_and_rules_without_effect_are_named() {
    let failing = GOOD.replace("expect = \"allow\"", "expect = \"deny\"");
    check(&failing, &[]).failure(
        1,
        &[
            "rules.toml: line 10: the test expects deny for tcp from tag:web to tag:db, port 5432, but rule 1 (line 3)",
            "passes not all of its tests",
        ],
    );
    let checked = check(&failing, &["--json"]);
    checked.failure(1, &[]);
    let json = json(&checked);
    assert_eq!((&json["valid"], &json["passed"]), (&true.into(), &false.into()));
    assert_eq!((&json["failures"][0]["line"], &json["failures"][0]["rule"]["line"]), (&10.into(), &3.into()));
    let open = check(&GOOD.replace("\"deny\"", "\"allow\""), &[]).success();
    assert!(open.stderr.contains("rules.toml:3:1: warning: the rule has no effect"), "{}", open.stderr);
}

#[test]
fn a_file_that_cannot_be_read_is_a_wrong_request() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("rules.toml");
    run(peersock(&["network", "rules", "check", text(&missing)])).failure(2, &["cannot read", "hint:"]);
    run(peersock(&["network", "rules", "check", text(dir.path())])).failure(2, &["cannot read", "hint:"]);
    run(peersock(&["network", "rules", "check", "/dev/zero"])).failure(1, &["262144 are allowed"]);
}

/// Checks a file called `rules.toml`.
fn check(content: &str, words: &[&str]) -> Finished {
    let dir = tempfile::tempdir().unwrap();
    write_file(&dir.path().join("rules.toml"), content, 0o644);
    let mut command = peersock(&["network", "rules", "check", "rules.toml"]);
    command.args(words).current_dir(dir.path());
    run(command)
}

fn json(checked: &Finished) -> Value {
    serde_json::from_str(checked.text()).expect("JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
