//! `--approve-hook`: puts the controller's questions to a program, and reads its decisions.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use peersock::NetworkId;
use peersock::overlay::membership::{MemberName, Tag};
use peersock_controller::{Additions, Controller, Decision, Inquiry};
use serde::Deserialize;
use serde_json::json;

use super::limited_program::{self, Failed, Groups, MAX_OUTPUT};
use super::now;
use crate::failure::{Failure, Outcome};
use crate::output::escape;
use crate::stdio;

/// Time in which the program has to decide.
const LIMIT: Duration = Duration::from_secs(5);

/// Interval in which one kind of failure, and the refusal of one machine, is told once.
const TELL_INTERVAL: Duration = Duration::from_secs(600);

/// Maximum number of machines whose refusals are told in that interval.
const MAX_TOLD: usize = 100;

/// Maximum number of characters of a text from outside.
const MAX_TEXT: usize = 200;

/// The approval program of a controller.
pub(super) struct Hook {
    program: PathBuf,
    network: (NetworkId, String),
    groups: Groups,
    send: Sender<Done>,
    done: Receiver<Done>,
    told: BTreeMap<String, Instant>,
}

/// A question, and what came of it.
struct Done {
    inquiry: Inquiry,
    answer: Result<Answer, NoAnswer>,
}

/// Reason why a run of the program is no decision: a word for its kind, and a text for people.
#[derive(Debug)]
struct NoAnswer {
    kind: &'static str,
    text: String,
}

impl Hook {
    pub(super) fn new(program: &Path, controller: &mut Controller) -> Outcome<Hook> {
        let program = std::path::absolute(program)?;
        check(&program)?;
        controller.set_approval_program(true);
        let (send, done) = mpsc::channel();
        let network = (controller.network(), controller.name());
        Ok(Hook { program, network, groups: Groups::default(), send, done, told: BTreeMap::new() })
    }

    /// Returns the groups of processes that have to end with this one.
    pub(super) fn groups(&self) -> Groups {
        self.groups.clone()
    }

    /// Gives the controller the decisions that have come, and starts the program for new questions. Never
    /// waits for a program.
    pub(super) fn step(&mut self, controller: &mut Controller) {
        while let Ok(done) = self.done.try_recv() {
            self.take_over(controller, done);
        }
        for inquiry in controller.take_inquiries(now()).unwrap_or_default() {
            let (program, groups, send) = (self.program.clone(), self.groups.clone(), self.send.clone());
            let (input, put) = (question(&inquiry, &self.network), inquiry.clone());
            let started = thread::Builder::new().name("approve-hook".into()).spawn(move || {
                let output = limited_program::run(&program, input.as_bytes(), LIMIT, &groups);
                let answer = output.map_err(NoAnswer::from).and_then(|output| Answer::read(&output));
                // The receiver is gone when the process ends.
                let _ = send.send(Done { inquiry: put, answer });
            });
            if let Err(error) = started {
                let answer = Err(NoAnswer::from(Failed::Start(error)));
                self.take_over(controller, Done { inquiry, answer });
            }
        }
    }

    fn take_over(&mut self, controller: &mut Controller, done: Done) {
        let Done { inquiry, answer } = done;
        let (decision, failed) = match answer {
            Ok(answer) => {
                if answer.decision == Decision::Deny {
                    self.tell_refusal(&inquiry, answer.reason.as_deref());
                }
                (Some(answer.decision), None)
            }
            Err(failed) => (None, Some(failed)),
        };
        let followed = controller.decide(now(), &mut rand::rng(), &inquiry, decision);
        let failed = failed.or_else(|| {
            let error = followed.err()?;
            Some(NoAnswer { kind: "followed", text: format!("its answer cannot be followed: {error}") })
        });
        if let Some(failed) = failed
            && self.is_news(failed.kind.to_owned())
        {
            stdio::note(format_args!(
                "the approval program {} fails: {}; machines wait for `peersock network approve`, and members \
                 keep their certificates until these end",
                self.program.display(),
                failed.text
            ));
        }
    }

    fn tell_refusal(&mut self, inquiry: &Inquiry, reason: Option<&str>) {
        let node = inquiry.identity.node_id();
        if self.told.len() < MAX_TOLD && self.is_news(node.to_string()) {
            let name = inquiry.name.as_ref().map_or("a machine without a name", MemberName::as_str);
            let what = if inquiry.is_renewal { "another certificate" } else { "admission" };
            let why = reason.map(|reason| format!(": {}", shortened(reason))).unwrap_or_default();
            stdio::note(format_args!("the approval program refuses {name} (node {node:.12}) {what}{why}"));
        }
    }

    /// Returns true if nothing was told about this for a while.
    fn is_news(&mut self, about: String) -> bool {
        self.told.retain(|_, at| at.elapsed() < TELL_INTERVAL);
        let is_news = !self.told.contains_key(&about);
        if is_news {
            self.told.insert(about, Instant::now());
        }
        is_news
    }
}

/// Fails if the program cannot be started at all, so that a typing error is noticed at once.
fn check(program: &Path) -> Outcome {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(
            format_args!("the approval program {} cannot be used: {why}", program.display()),
            "give the path of a file that may be executed to --approve-hook",
        )
    };
    let file = std::fs::metadata(program).map_err(|error| failed(&error))?;
    match file.is_file() && file.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err(failed(&"it is no executable file")),
    }
}

/// Returns the input of the program: one line of JSON. Texts that strangers choose are short, and have no
/// characters that a terminal acts on.
fn question(inquiry: &Inquiry, network: &(NetworkId, String)) -> String {
    let tags: Vec<_> = inquiry.tags.iter().map(Tag::as_str).collect();
    let invite = inquiry
        .invite
        .as_ref()
        .map(|invite| json!({ "label": invite.label, "made_by": shortened(&invite.made_by) }));
    let question = json!({
        "version": 1,
        "event": if inquiry.is_renewal { "renewal" } else { "join" },
        "network": { "id": network.0.to_string(), "name": shortened(&network.1) },
        "node": inquiry.identity.node_id().to_string(),
        "name": inquiry.name.as_ref().map(MemberName::as_str),
        "tags": tags,
        "ephemeral": inquiry.is_ephemeral,
        "description": escape(&inquiry.description),
        "source": inquiry.source.map(|source| source.to_string()),
        "code": inquiry.code.map(|code| code.to_string()),
        "invite": invite,
    });
    format!("{question}\n")
}

fn shortened(text: &str) -> String {
    escape(&text.chars().take(MAX_TEXT).collect::<String>())
}

/// Answer of the program.
#[derive(Debug, PartialEq)]
struct Answer {
    decision: Decision,
    reason: Option<String>,
}

/// Output of the program. A field that is not known is an error, because it may be a misspelt restriction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    decision: Word,
    name: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    remove_tags: Vec<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Allow,
    Ask,
    Deny,
}

impl Answer {
    fn read(output: &[u8]) -> Result<Answer, NoAnswer> {
        let failed =
            |text: String| NoAnswer { kind: "output", text: format!("its output is no answer: {text}") };
        let output: Output = serde_json::from_slice(output).map_err(|error| failed(error.to_string()))?;
        let tags = |texts: &[String]| {
            let parsed = texts.iter().map(|text| {
                text.parse::<Tag>().map_err(|error| failed(format!("tag `{}` {error}", shortened(text))))
            });
            parsed.collect::<Result<Vec<_>, _>>()
        };
        let name = output.name.as_deref().map(|text| {
            text.parse::<MemberName>().map_err(|error| failed(format!("name `{}` {error}", shortened(text))))
        });
        let (name, tags, removed_tags) = (name.transpose()?, tags(&output.tags)?, tags(&output.remove_tags)?);
        let decision = match output.decision {
            Word::Allow => Decision::Allow(Additions { name, tags, removed_tags }),
            Word::Ask => Decision::Ask,
            Word::Deny => Decision::Deny,
        };
        Ok(Answer { decision, reason: output.reason })
    }
}

impl From<Failed> for NoAnswer {
    fn from(failed: Failed) -> NoAnswer {
        let (kind, text) = match failed {
            Failed::Start(error) => ("start", format!("it cannot be started: {error}")),
            Failed::Time => ("time", format!("it has not ended within {} s", LIMIT.as_secs())),
            Failed::Output => ("size", format!("it prints more than {} KiB", MAX_OUTPUT >> 10)),
            Failed::Status(status, line) if line.is_empty() => ("status", format!("it ends with {status}")),
            Failed::Status(status, line) => {
                ("status", format!("it ends with {status}, and says: {}", shortened(&line)))
            }
        };
        NoAnswer { kind, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(texts: &[&str]) -> Vec<Tag> {
        texts.iter().map(|text| text.parse().expect("a tag")).collect()
    }

    #[test]
    fn answers_are_read() {
        let read = |text: &str| Answer::read(text.as_bytes()).expect("an answer");
        assert_eq!(read(" {\"decision\":\"ask\"}\n").decision, Decision::Ask);
        let denied = read(r#"{"decision":"deny","reason":"not in the directory"}"#);
        assert_eq!(denied.decision, Decision::Deny);
        assert_eq!(denied.reason.as_deref(), Some("not in the directory"));
        let allowed = read(r#"{"decision":"allow","name":"Beta","tags":["db"],"remove_tags":["web","old"]}"#);
        let additions =
            Additions { name: "beta".parse().ok(), tags: tags(&["db"]), removed_tags: tags(&["web", "old"]) };
        assert_eq!(allowed.decision, Decision::Allow(additions));
    }

    #[test]
    fn everything_else_is_no_answer() {
        for text in [
            "",
            "\n",
            "allow",
            "null",
            "[]",
            "{}",
            "{\"decision\":\"allow\"",
            "{\"decision\":\"allow\"} {\"decision\":\"allow\"}",
            "{\"decision\":\"allow\"} trailing",
            "{\"decision\":\"Allow\"}",
            "{\"decision\":true}",
            "{\"decision\":\"deny\",\"decision\":\"allow\"}",
            "{\"decision\":\"allow\",\"tag\":[\"db\"]}",
            "{\"decision\":\"allow\",\"tags\":[\"d b\"]}",
            "{\"decision\":\"allow\",\"tags\":\"db\"}",
            "{\"decision\":\"allow\",\"tags\":[1]}",
            "{\"decision\":\"allow\",\"name\":\"a.b\"}",
            "{\"decision\":\"allow\",\"name\":\"\"}",
            "\u{feff}{\"decision\":\"allow\"}",
        ] {
            assert!(Answer::read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Answer::read(b"{\"decision\":\"allow\",\"name\":\"\xff\"}").is_err());
        let deep = "[".repeat(MAX_OUTPUT);
        assert!(Answer::read(deep.as_bytes()).is_err());
    }

    #[test]
    fn texts_of_strangers_are_short_and_clean() {
        assert_eq!(shortened("a\u{202e}b\n\u{1b}[2J"), "a\\u{202e}b\\n\\u{1b}[2J");
        assert_eq!(shortened(&"x".repeat(1000)).len(), MAX_TEXT);
    }
}
