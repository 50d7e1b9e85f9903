//! Counts passed, failed and skipped checks in the output of test runners.

use std::fmt;

use crate::Result;
use crate::xml::unescape;

/// Prefix of the line by which a test reports that it cannot run here.
const SKIP: &str = "SKIP ";

/// Maximum number of lines of a failed test's output repeated at the end, and maximum length of each in
/// characters.
const LINES: usize = 25;
const LINE: usize = 400;

/// Result of one or more steps.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    /// Number of checks passed.
    pub(super) passed: usize,
    /// Failed checks, with the end of their output.
    pub(super) failed: Vec<(String, String)>,
    /// Skipped checks, with the reasons.
    pub(super) skipped: Vec<(String, String)>,
    /// Names and durations in seconds of the tests whose runner reports them.
    pub(super) durations: Vec<(String, f64)>,
}

impl Outcome {
    /// Makes one passed check.
    pub(super) fn passed() -> Outcome {
        Outcome { passed: 1, ..Outcome::default() }
    }

    /// Makes one failed check.
    pub(super) fn failed(what: impl Into<String>) -> Outcome {
        Outcome { failed: vec![(what.into(), String::new())], ..Outcome::default() }
    }

    /// Makes one check that failed with these complaints, or passed if there are none.
    pub(super) fn of_complaints(complaints: Vec<String>) -> Outcome {
        if complaints.is_empty() {
            return Self::passed();
        }
        let failed = complaints.into_iter().map(|complaint| (complaint, String::new())).collect();
        Outcome { failed, ..Outcome::default() }
    }

    /// Makes one check that passed or failed.
    pub(super) fn of(what: impl Into<String>, success: bool) -> Outcome {
        if success { Self::passed() } else { Self::failed(what) }
    }

    /// Makes one skipped check.
    pub(super) fn skipped(what: &str, reason: impl Into<String>) -> Outcome {
        Outcome { skipped: vec![(what.to_owned(), reason.into())], ..Outcome::default() }
    }

    /// Adds another outcome.
    pub(super) fn add(&mut self, other: Outcome) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.durations.extend(other.durations);
    }

    /// Returns the longest tests, longest first.
    pub(super) fn slowest(&self, count: usize) -> Vec<&(String, f64)> {
        let mut all: Vec<_> = self.durations.iter().collect();
        all.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        all.truncate(count);
        all
    }

    /// Counts the output of `cargo test`, with or without `--show-output`.
    pub(super) fn from_libtest(output: &str) -> Outcome {
        let mut outcome = Outcome::default();
        for line in output.lines() {
            if let Some(counts) = line.strip_prefix("test result: ") {
                outcome.passed += count_before(counts, " passed");
            } else if let Some(test) = line.strip_prefix("test ") {
                if let Some(name) = test.strip_suffix(" ... FAILED") {
                    outcome.failed.push((name.to_owned(), String::new()));
                } else if let Some((name, reason)) = test.split_once(" ... ignored") {
                    let reason = reason.strip_prefix(", ").unwrap_or("marked as ignored");
                    outcome.skipped.push((name.to_owned(), reason.to_owned()));
                }
            }
        }
        outcome.take_skips(output);
        outcome
    }

    /// Counts a JUnit file by nextest, which holds the output of every test.
    /// Fails if it is not such a file.
    pub(super) fn from_junit(xml: &str) -> Result<Outcome> {
        let suites = tags(xml, "testsuites").next().ok_or("the JUnit file has no <testsuites>")?;
        let number = |name| attribute(suites, name).and_then(|text| text.parse::<usize>().ok());
        let total = number("tests").ok_or("the JUnit file has no number of tests")?;
        let bad = number("failures").unwrap_or(0) + number("errors").unwrap_or(0);
        let mut outcome = Outcome { passed: total.saturating_sub(bad), ..Outcome::default() };
        for case in xml.split("<testcase ").skip(1) {
            let part = |name| attribute(case, name).map(unescape).unwrap_or_default();
            let name = format!("{} {}", part("classname"), part("name"));
            if case.contains("<failure") || case.contains("<error") {
                outcome.failed.push((name.clone(), failure_text(case)));
            }
            outcome.durations.push((name, part("time").parse().unwrap_or(0.0)));
        }
        if outcome.failed.len() != bad {
            return Err(
                format!("the JUnit file counts {bad} failures and lists {}", outcome.failed.len()).into()
            );
        }
        outcome.take_skips(&unescape(&xml.replace(['<', '>'], "\n")));
        Ok(outcome)
    }

    /// Counts a JUnit file by pytest.
    /// Fails if it is not such a file.
    pub(super) fn from_pytest(xml: &str) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        tags(xml, "testsuite").next().ok_or("the JUnit file has no <testsuite>")?;
        for case in xml.split("<testcase ").skip(1) {
            let part = |name| attribute(case, name).map(unescape).unwrap_or_default();
            // Include the space, or the text would match the end of `classname`.
            let name = format!("{} {}", part("classname"), part(" name"));
            outcome.durations.push((name.clone(), part("time").parse().unwrap_or(0.0)));
            if case.contains("<failure") || case.contains("<error") {
                outcome.failed.push((name, failure_text(case)));
            } else if let Some((_, skipped)) = case.split_once("<skipped ") {
                outcome.skipped.push((name, attribute(skipped, "message").map(unescape).unwrap_or_default()));
            } else {
                outcome.passed += 1;
            }
        }
        Ok(outcome)
    }

    /// Counts a program whose last line is `N passed, N failed`.
    /// Fails if the last line has another form.
    pub(super) fn from_last_line(what: &str, output: &str) -> Result<Outcome> {
        let last = output.lines().last().unwrap_or_default();
        if !last.contains(" passed, ") || !last.contains(" failed") {
            return Err(format!("the last line is not 'N passed, N failed': {last}").into());
        }
        let failed = (0..count_before(last, " failed")).map(|_| (what.to_owned(), String::new())).collect();
        Ok(Outcome { passed: count_before(last, " passed"), failed, ..Outcome::default() })
    }

    /// Moves self-skipped tests, which count as passed until here, to the skipped ones.
    fn take_skips(&mut self, output: &str) {
        for line in output.lines() {
            // The runner's 'test NAME ... ' may precede the test's first line.
            let line = line.split_once(" ... ").map_or(line, |(_, rest)| rest);
            if let Some((name, reason)) = line.strip_prefix(SKIP).and_then(|skip| skip.split_once(": ")) {
                self.passed = self.passed.saturating_sub(1);
                self.skipped.push((name.to_owned(), reason.trim_end().to_owned()));
            } else if line.starts_with(SKIP.trim_end()) {
                // Otherwise it would count as passed.
                let what = "a test skips itself and does not say which it is";
                self.failed.push((what.to_owned(), line.to_owned()));
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, skipped) = (self.passed, self.failed.len(), self.skipped.len());
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Returns the end of a failed test's output in a JUnit file: its stderr, which holds more, or `<failure …>`.
fn failure_text(case: &str) -> String {
    let text = ["system-err", "failure", "error"].into_iter().find_map(|name| {
        let (_, rest) = case.split_once(&format!("<{name}"))?;
        let (_, rest) = rest.split_once('>')?;
        let text = rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim());
        text.filter(|text| !text.is_empty())
    });
    let text = unescape(text.unwrap_or_default());
    let lines: Vec<_> = text.lines().map(|line| line.chars().take(LINE).collect::<String>()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Returns the number in front of a word.
fn count_before(text: &str, word: &str) -> usize {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Returns the attributes of every `<name …>`.
fn tags<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let open = format!("<{name} ");
    xml.match_indices(&open)
        .filter_map(|(at, open)| xml[at + open.len()..].split('>').next())
        .collect::<Vec<_>>()
        .into_iter()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    // The first attribute follows the tag's name directly.
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    rest.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_output_is_counted_over_all_programs() {
        let output = "\
running 3 tests
test a::works ... ok
test a::breaks ... FAILED
test a::later ... ignored, needs a moon
test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
running 2 tests
SKIP namespaces: not root
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        let outcome = Outcome::from_libtest(output);
        assert_eq!(outcome.to_string(), "12 passed, 1 failed, 2 skipped");
        assert_eq!(outcome.failed, [("a::breaks".to_owned(), String::new())]);
        assert_eq!(outcome.skipped[0], ("a::later".to_owned(), "needs a moon".to_owned()));
        assert_eq!(outcome.skipped[1], ("namespaces".to_owned(), "not root".to_owned()));
    }

    #[test]
    fn junit_is_counted_with_what_tests_said() {
        let xml = r#"<?xml version="1.0"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="x" time="1.2">
  <testsuite name="bench" tests="3" disabled="0" errors="0" failures="1">
    <testcase name="a" classname="bench" time="0.1"><system-out>SKIP a: needs &lt;root&gt;</system-out></testcase>
    <testcase name="b" classname="bench" time="0.2"></testcase>
    <testcase name="c" classname="bench" time="0.3"><failure type="test failure">it &lt;is&gt; not
so</failure></testcase>
  </testsuite>
</testsuites>"#;
        let outcome = Outcome::from_junit(xml).expect("well-formed");
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(outcome.failed, [("bench c".to_owned(), "it <is> not\nso".to_owned())]);
        assert_eq!(outcome.skipped, [("a".to_owned(), "needs <root>".to_owned())]);
        assert_eq!(outcome.slowest(2), [&("bench c".to_owned(), 0.3), &("bench b".to_owned(), 0.2)]);
        assert!(Outcome::from_junit("<html>").is_err());
    }

    #[test]
    fn pytest_s_junit_is_counted() {
        let xml = r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest"
 errors="0" failures="1" skipped="1" tests="3"><testcase classname="tests.a" name="one" time="0.1" /><testcase
 classname="tests.a" name="two" time="0.1"><failure message="no">no</failure></testcase><testcase classname="tests.a"
 name="three" time="0.1"><skipped type="pytest.skip" message="needs &lt;root&gt;">x</skipped></testcase></testsuite>"#;
        let outcome = Outcome::from_pytest(&xml.replace('\n', "")).expect("well-formed");
        assert_eq!(outcome.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(outcome.failed, [("tests.a two".to_owned(), "no".to_owned())]);
        assert_eq!(outcome.skipped, [("tests.a three".to_owned(), "needs <root>".to_owned())]);
        assert!(Outcome::from_pytest("<html>").is_err());
    }

    #[test]
    fn of_a_long_failure_the_end_is_kept() {
        let lines: Vec<_> = (0..100).map(|n| format!("line {n} {}", "x".repeat(1000))).collect();
        let text = failure_text(&format!("name=\"a\"><error message=\"m\">{}</error>", lines.join("\n")));
        assert_eq!(text.lines().count(), LINES);
        assert!(text.starts_with("line 75 x") && text.lines().all(|line| line.chars().count() == LINE));
        assert_eq!(failure_text("name=\"a\"><failure type=\"none\"/>"), "");
        let both = "name=\"a\"><failure type=\"f\">no</failure><system-err>a\nserver: no</system-err>";
        assert_eq!(failure_text(both), "a\nserver: no");
    }

    #[test]
    fn the_last_line_of_a_program_counts() {
        let outcome = Outcome::from_last_line("seed", "12 passed so far\n1998 passed, 2 failed\n");
        assert_eq!(outcome.expect("counts").to_string(), "1998 passed, 2 failed, 0 skipped");
        assert!(Outcome::from_last_line("seed", "1998 passed, 2 failed\nbye\n").is_err());
    }
}
