//! Checks of the header for programs written for libzt against libzt's declarations: name by name and type by
//! type (`tests/libzt.txt`), and as strict C and C++.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// The declarations of libzt's header.
const FACTS: &str = include_str!("../libzt.txt");

/// The user guide about it.
const GUIDE: &str = include_str!("../../../../docs/use/LIBZT.md");

/// Every warning is an error.
const STRICT: [&str; 5] = ["-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only"];

#[test]
fn every_declaration_of_libzt_is_there_or_said_to_be_left_out() {
    let mut checks = String::from("#include <ZeroTierSockets.h>\n");
    let lines = FACTS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for (number, fact) in lines.enumerate() {
        let check = check(number, fact).unwrap_or_else(|| panic!("this is no fact: {fact}"));
        writeln!(checks, "{check}").expect("a string takes everything");
        if let Some(absent) = fact.strip_prefix("absent ") {
            let (name, reason) = absent.split_once(": ").expect("a name and a reason");
            assert!(!reason.is_empty() && (!name.starts_with("zts_") || GUIDE.contains(name)), "{fact}");
        }
    }
    for standard in ["c99", "c17"] {
        compile(standard, &checks);
    }
    // A check fails where it should.
    for wrong in [
        "macro ZTS_NOTHING",
        "number ZTS_ID_STR_BUF_LEN 385",
        "enumerator ZTS_EPERM 2",
        "enum zts_nothing_t",
        "type zts_socklen_t uint16_t",
        "variable zts_errno long",
        "struct struct zts_nothing",
        "member struct zts_iovec iov_len int",
        "member struct zts_in_addr nothing int",
        "function zts_close int (long)",
        "function zts_nothing int (void)",
        "absent ZTS_FD_SET: it is there",
        "absent zts_close: it is there",
    ] {
        let source = format!("#include <ZeroTierSockets.h>\n{}\n", check(0, wrong).expect("a fact"));
        if let Some(output) = run("c99", &source) {
            assert!(!output.status.success(), "nobody notices: {wrong}");
        }
    }
}

#[test]
fn the_header_is_strict_c_and_c_plus_plus() {
    // Headers included before must not matter.
    for source in ["#include <ZeroTierSockets.h>\n", "#include <stdio.h>\n#include <ZeroTierSockets.h>\n"] {
        for standard in ["c99", "c11", "c17", "c++11", "c++17"] {
            compile(standard, source);
        }
    }
}

/// Returns C code that compiles if a line of the facts is true, or `None` for another line.
fn check(number: usize, fact: &str) -> Option<String> {
    let (kind, rest) = fact.split_once(' ')?;
    let holds = |condition: String| format!("typedef char check_{number}[({condition}) ? 1 : -1];");
    let same = |one: &str, other: &str| {
        holds(format!("__builtin_types_compatible_p(__typeof__({one}), __typeof__({other}))"))
    };
    let present = |name: &str| format!("#ifndef {name}\n#error {name}\n#endif");
    Some(match kind {
        "macro" => present(rest),
        "number" => {
            let (name, value) = rest.split_once(' ')?;
            format!("{}\n{}", present(name), holds(format!("({name}) == {value}")))
        }
        "enumerator" => {
            let (name, value) = rest.split_once(' ')?;
            holds(format!("(int)({name}) == {value}"))
        }
        "enum" | "struct" => holds(format!("sizeof({rest}) > 0")),
        "type" | "variable" => {
            let (name, of) = rest.split_once(' ')?;
            same(name, of)
        }
        "member" => {
            let words = if rest.starts_with("struct ") { 2 } else { 1 };
            let (at, _) = rest.match_indices(' ').nth(words - 1)?;
            let (name, of) = rest[at + 1..].split_once(' ')?;
            same(&format!("(({} *)0)->{name}", &rest[..at]), of)
        }
        "function" => {
            let (name, types) = rest.split_once(' ')?;
            // A pointer to a function may be among the arguments, but none begins with a parenthesis.
            let (result, arguments) = types.split_at(types.find(" (")?);
            let pointer = format!("{result} (*call_{number}){arguments}");
            format!("extern {pointer};\n{pointer} = {name};")
        }
        "absent" => {
            let (name, _) = rest.split_once(": ")?;
            match name.rsplit_once('.') {
                // C cannot check that a member is absent.
                Some(_) => String::new(),
                None => {
                    format!("#ifdef {name}\n#error {name}\n#endif\nstruct {name} {{ int a; }} {name}(void);")
                }
            }
        }
        _ => return None,
    })
}

/// Compiles a source, unless there is no compiler for it.
fn compile(standard: &str, source: &str) {
    let Some(output) = run(standard, source) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{standard}: {said}");
}

fn run(standard: &str, source: &str) -> Option<std::process::Output> {
    let (compiler, language) = if standard.starts_with("c++") { ("c++", "c++") } else { ("cc", "c") };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), source).expect("it can be written to");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(compiler);
    command.args(STRICT).arg(format!("-std={standard}")).args(["-x", language]);
    command.arg("-I").arg(manifest.join("include")).arg("-I").arg(manifest.join("../compat"));
    let output = command.arg(file.path()).output();
    if output.is_err() {
        println!("SKIP {standard}: {compiler} is not installed");
    }
    output.ok()
}
