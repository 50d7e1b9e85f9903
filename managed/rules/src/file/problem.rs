//! Errors and warnings with their places in a file.

use std::fmt;
use std::ops::Range;

use crate::Complaint;

/// Error or warning about a file of rules, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1.
    pub line: usize,
    /// Column, counted in characters from 1.
    pub column: usize,
    /// Error in one sentence, without a full stop.
    pub text: String,
    /// Correct form, or the next thing to do.
    pub hint: String,
}

impl fmt::Display for Problem {
    /// Writes the error and the hint in two lines, without a line feed at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}\nhint: {}", self.line, self.column, self.text, self.hint)
    }
}

/// Text of a file, and what was found in it.
pub(super) struct Notes<'a> {
    text: &'a str,
    /// Places at which lines begin.
    lines: Vec<usize>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Notes<'a> {
    /// Maximum number of errors, and of warnings, that one reading returns.
    const MAX: usize = 20;

    pub(super) fn new(text: &'a str) -> Self {
        let behind_feeds = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(behind_feeds).collect();
        Self { text, lines, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Notes an error.
    pub(super) fn error(&mut self, span: Range<usize>, complaint: Complaint) {
        if self.problems.len() < Self::MAX {
            let problem = self.problem(span, complaint);
            self.problems.push(problem);
        }
    }

    /// Notes something that is permitted and probably not meant.
    pub(super) fn warn(&mut self, span: Range<usize>, complaint: Complaint) {
        if self.warnings.len() < Self::MAX {
            let warning = self.problem(span, complaint);
            self.warnings.push(warning);
        }
    }

    /// Returns the line of a place, counted from 1.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Returns the errors in the order of their places.
    pub(super) fn into_errors(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    /// Returns the warnings in the order of their places.
    pub(super) fn into_warnings(mut self) -> Vec<Problem> {
        self.warnings.sort_by_key(|problem| (problem.line, problem.column));
        self.warnings
    }

    fn problem(&self, span: Range<usize>, complaint: Complaint) -> Problem {
        let (line, column) = self.place(span.start);
        Problem { line, column, text: complaint.text, hint: complaint.hint }
    }

    /// Returns line and column of a place, both from 1.
    pub(super) fn place(&self, at: usize) -> (usize, usize) {
        let line = self.line(at);
        let before = self.text.as_bytes().get(self.lines[line - 1]..at.min(self.text.len()));
        // Bytes that go on with a character are not counted, so the place may be anywhere.
        let is_first = |byte: &&u8| (**byte & 0xc0) != 0x80;
        (line, 1 + before.unwrap_or_default().iter().filter(is_first).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let text = "ab\n\nüx = 1\n";
        let notes = Notes::new(text);
        for (at, place) in [
            (0, (1, 1)),
            (2, (1, 3)),
            (3, (2, 1)),
            (4, (3, 1)),
            (6, (3, 2)),
            (text.len(), (4, 1)),
            (text.len() + 9, (4, 1)),
        ] {
            assert_eq!(notes.place(at), place, "{at}");
        }
        assert_eq!(Notes::new("").place(0), (1, 1));
    }
}
