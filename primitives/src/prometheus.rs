//! Output of numbers in the text format of Prometheus, which its servers and `node_exporter` read.
//!
//! A [`Text`] consists of families: numbers of one name, which differ in their labels. A family without a
//! number leaves nothing in the text.
//!
//! ```
//! use peersock_primitives::prometheus::Text;
//!
//! let mut text = Text::default();
//! let mut doors = text.counter("doors_opened_total", "Times that a door was opened.");
//! doors.number(&[("door", "front")], 7);
//! doors.number(&[("door", "back \"yard\"")], 0);
//! text.gauge("door_open", "Whether the door is open.");
//! let lines = [
//!     "# HELP doors_opened_total Times that a door was opened.",
//!     "# TYPE doors_opened_total counter",
//!     "doors_opened_total{door=\"front\"} 7",
//!     "doors_opened_total{door=\"back \\\"yard\\\"\"} 0",
//! ];
//! assert!(text.finish().lines().eq(lines));
//! ```

use std::fmt::Write as _;

/// Media type of the format, for the header `Content-Type` of an answer over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// Text in the format. Each family must be written only once, with all its numbers together.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family of numbers that only grow, until the counting process restarts. By custom the name
    /// ends with `_total`.
    pub fn counter<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        Family { text: &mut self.0, name, kind: "counter", help, is_begun: false }
    }

    /// Begins a family of numbers that go up and down.
    pub fn gauge<'a>(&'a mut self, name: &'a str, help: &'a str) -> Family<'a> {
        Family { text: &mut self.0, name, kind: "gauge", help, is_begun: false }
    }

    /// Returns the whole text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Numbers of one name.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'a str,
    kind: &'static str,
    help: &'a str,
    is_begun: bool,
}

impl Family<'_> {
    /// Writes one number. `labels` have names of letters, digits and underscores, and any text as value. They
    /// must differ from the labels of the family's other numbers.
    pub fn number(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.write(labels, value.into());
    }

    fn write(&mut self, labels: &[(&str, &str)], value: Number) {
        let (name, help) = (self.name, self.help);
        // Writing to a string cannot fail.
        if !self.is_begun {
            self.is_begun = true;
            let _ = writeln!(self.text, "# HELP {name} {}", escaped(help, false));
            let _ = writeln!(self.text, "# TYPE {name} {}", self.kind);
        }
        self.text.push_str(name);
        for (position, (label, value)) in labels.iter().enumerate() {
            let begin = if position == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{begin}{label}=\"{}\"", escaped(value, true));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = match value {
            Number::Whole(value) => writeln!(self.text, " {value}"),
            // Rust writes `inf`, which the format does not know.
            Number::Real(value) if value == f64::INFINITY => writeln!(self.text, " +Inf"),
            Number::Real(value) if value == f64::NEG_INFINITY => writeln!(self.text, " -Inf"),
            Number::Real(value) => writeln!(self.text, " {value}"),
        };
    }
}

/// Number with its notation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Written with all its digits; readers may keep 53 bits of it.
    Whole(u64),
    /// Written so that it is read back as the same number.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<i32> for Number {
    fn from(value: i32) -> Number {
        Number::Real(value.into())
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

/// Escapes a text for one line of the format; in a label's value quotation marks are escaped, too.
fn escaped(text: &str, is_label: bool) -> String {
    let mut written = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '"' if is_label => written.push_str("\\\""),
            c => written.push(c),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_help_are_escaped() {
        let mut text = Text::default();
        text.gauge("x", "a \"b\" \\ c\nd").number(&[("l", "a \"b\" \\ c\nd"), ("m", "ü")], 1u64);
        assert_eq!(
            text.finish(),
            "# HELP x a \"b\" \\\\ c\\nd\n# TYPE x gauge\nx{l=\"a \\\"b\\\" \\\\ c\\nd\",m=\"ü\"} 1\n"
        );
    }

    #[test]
    fn numbers_are_written_as_the_format_has_them() {
        let mut text = Text::default();
        let mut family = text.gauge("x", "y");
        let numbers: [Number; 7] = [
            u64::MAX.into(),
            0.25.into(),
            true.into(),
            f64::INFINITY.into(),
            f64::NEG_INFINITY.into(),
            f64::NAN.into(),
            (-3).into(),
        ];
        numbers.into_iter().for_each(|number| family.number(&[], number));
        let text = text.finish();
        let values: Vec<_> = text.lines().skip(2).map(|line| line.strip_prefix("x ").unwrap()).collect();
        assert_eq!(values, ["18446744073709551615", "0.25", "1", "+Inf", "-Inf", "NaN", "-3"]);
    }
}
