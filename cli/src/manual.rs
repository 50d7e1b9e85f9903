//! `peersock man`

use std::path::{Path, PathBuf};
use std::{fs, io};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use crate::Cli;
use crate::failure::{Failure, Outcome};

/// Write the manual pages, one for each command
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  peersock man --out ~/.local/share/man/man1")]
pub(crate) struct Args {
    /// Folder to write to; created if missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes the pages.
pub(crate) fn run(args: &Args) -> Outcome {
    let failed = |error| {
        Failure::new(
            format_args!("cannot write to {}: {error}", args.out.display()),
            "give a folder that can be written to with --out",
        )
    };
    fs::create_dir_all(&args.out).map_err(failed)?;
    // Omits `help`, which repeats the pages.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    write_pages(&program, &args.out).map_err(failed)
}

/// Writes the pages of a command and of its visible subcommands.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write_pages(inner, folder)?;
    }
    let page = Man::new(command.clone());
    let file = page.get_filename();
    let title = file.trim_end_matches(".1").to_uppercase();
    let mut text =
        format!(".TH \"{title}\" \"1\" \"\" \"peersock {}\" \"peersock\"\n", env!("CARGO_PKG_VERSION"))
            .into_bytes();
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(notes) = command.get_after_long_help().or_else(|| command.get_after_help()) {
        text.extend_from_slice(format!(".SH NOTES\n{}", notes_as_roff(&notes.to_string())).as_bytes());
    }
    fs::write(folder.join(file), text)
}

/// Converts the notes below a help's options to roff; indented lines, which are commands, stay separate.
fn notes_as_roff(notes: &str) -> String {
    let mut text = String::new();
    let mut in_lines = false;
    for line in notes.lines() {
        let is_line = line.starts_with(' ');
        if is_line != in_lines && !line.is_empty() {
            text += if is_line { ".nf\n" } else { ".fi\n" };
            in_lines = is_line;
        }
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        match line.chars().next() {
            None => text += ".PP",
            Some('.' | '\'') => text += &format!("\\&{line}"),
            Some(_) => text += &line,
        }
        text.push('\n');
    }
    text + if in_lines { ".fi\n" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stay_lines_and_prose_is_filled() {
        let notes = "One\ntwo.\n\nExamples:\n  a --b\n  c \\d";
        let roff = "One\ntwo.\n.PP\nExamples:\n.nf\n  a \\-\\-b\n  c \\ed\n.fi\n";
        assert_eq!(notes_as_roff(notes), roff);
        assert_eq!(notes_as_roff(".x\n'y"), "\\&.x\n\\&'y\n");
    }
}
