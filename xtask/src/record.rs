//! `cargo xtask record`: runs the README's demonstration, and draws what it prints as `docs/demo.svg`.
//!
//! The picture is text in a fixed-width font, for light and dark pages, without any other file. The step
//! `readme` of `cargo xtask ci` runs the demonstration again, and compares its lines with the picture,
//! without the figures.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;

use crate::xml::escape;
use crate::{Result, cargo, root};

/// The file, from the workspace's root.
const FILE: &str = "docs/demo.svg";
const COMMAND: [&str; 4] = ["run", "--release", "--", "demo"];

/// Columns of a line's label, which the demonstration pads.
const LABEL: usize = 13;

// Lengths in pixels.
const MARGIN: usize = 20;
const LINE: usize = 20;
/// Width of a column. Fonts differ a little, so the lines get no more than their share.
const COLUMN: f64 = 7.8;

/// Style sheet. The background keeps the text readable on pages whose colours differ from the system's.
const STYLE: &str = "\
text{white-space:pre;font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328}
.back{fill:#f6f8fa;stroke:#d1d9e0}.prompt{fill:#59636e}.label{font-weight:600;fill:#0550ae}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#151b23;stroke:#3d444d}
.prompt{fill:#9198a1}.label{fill:#79c0ff}}";

/// Runs the demonstration and writes the picture.
///
/// # Errors
///
/// The demonstration fails, or the file cannot be written.
pub(crate) fn run() -> Result<()> {
    let output = cargo().args(COMMAND).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err("the demonstration failed; nothing was recorded".into());
    }
    let said = String::from_utf8(output.stdout)?;
    print!("{said}");
    fs::write(root().join(FILE), svg(&format!("cargo {}", COMMAND.join(" ")), &said))?;
    println!("written: {FILE}");
    Ok(())
}

/// Returns the picture of a terminal with a command and its output.
fn svg(command: &str, said: &str) -> String {
    let columns = said.lines().map(|line| line.chars().count()).max().unwrap_or(0).max(command.len() + 2);
    let width = 2 * MARGIN + (columns as f64 * COLUMN).ceil() as usize;
    let height = 2 * MARGIN + LINE * (said.lines().count() + 1);
    let (title, description) = (escape(&format!("A run of {command}")), escape(&spoken(said)));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">{title}</title>\n\
         <desc id=\"desc\">{description}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n",
        width - 1,
        height - 1,
    );
    let mut y = MARGIN + LINE * 3 / 4;
    out.push_str(&text("prompt", 0, y, "$"));
    out.push_str(&text("command", 2, y, command));
    for line in said.lines() {
        y += LINE;
        let (label, value) = line.split_at_checked(LABEL).unwrap_or((line, ""));
        out.push('\n');
        out.push_str(&text("label", 0, y, label.trim_end()));
        out.push_str(&text("value", LABEL, y, value));
    }
    out.push_str("\n</svg>\n");
    out
}

/// Returns the output as one sentence for people who hear it.
fn spoken(said: &str) -> String {
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

fn text(class: &str, column: usize, y: usize, text: &str) -> String {
    let x = MARGIN as f64 + column as f64 * COLUMN;
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write!(out, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\">{}</text>", escape(text));
    out
}

#[cfg(test)]
mod tests {
    use roxmltree::Document;

    use super::*;

    #[test]
    fn each_line_of_the_output_is_a_label_and_a_value() {
        let said = "network      ff00 (<open> & new)\n             at   ::1\nshort\n";
        let picture = svg("peersock demo", said);
        let document = Document::parse(&picture).expect("XML");
        let of_class = |class: &str| -> Vec<String> {
            let texts = document.descendants().filter(|node| node.attribute("class") == Some(class));
            texts.map(|node| node.text().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(of_class("command"), ["peersock demo"]);
        assert_eq!(of_class("label"), ["network", "", "short"]);
        assert_eq!(of_class("value"), ["ff00 (<open> & new)", "at   ::1", ""]);
        let described = document.descendants().find(|node| node.has_tag_name("desc")).expect("a description");
        assert_eq!(described.text(), Some("network ff00 (<open> & new); at ::1; short"));
    }

    #[test]
    fn the_recorded_run_is_of_this_command_and_ends_well() {
        let picture = fs::read_to_string(root().join(FILE)).expect("the picture");
        assert!(picture.contains(&format!(">cargo {}<", COMMAND.join(" "))));
        assert!(picture.contains(" verified<"));
    }
}
