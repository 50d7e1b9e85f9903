//! Checks of all failures' texts: the house style, a hint, and no Debug output.
//!
//! This program's texts are read from its source, so that none is missed for lack of a test that provokes it.
//! The library's texts are generated, one for each variant.

use std::fs;
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, ExprMethodCall, ItemConst, ItemMod, Lit, Local, Macro, Pat, Stmt, Token};

use super::library::samples;

/// The constructors that take a text, with its argument index; the hint follows it.
const CONSTRUCTORS: [(&str, usize); 3] = [("new", 0), ("usage", 0), ("with_status", 1)];

#[test]
fn every_text_in_the_source_has_the_house_s_style_and_a_hint() {
    let program =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the program's folder");
    let files: Vec<_> = ["src", "demo/src", "terminal/src"]
        .iter()
        .flat_map(|folder| sources(&program.join(folder)))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("the source can be read");
            (path.display().to_string(), syn::parse_file(&text).expect("the source is Rust"))
        })
        .collect();
    let library = program.join("terminal/src/failure/library.rs");
    let text = fs::read_to_string(&library).expect("the source can be read");
    let library = ("library.rs".to_owned(), syn::parse_file(&text).expect("the source is Rust"));
    let mut constants = Constants::default();
    for (path, file) in files.iter().chain([&library]) {
        constants.path.clone_from(path);
        constants.visit_file(file);
    }
    let mut found = Vec::new();
    for (path, file) in &files {
        let mut texts = Texts::new(path, &constants);
        texts.visit_file(file);
        found.push(texts);
    }
    let faults: Vec<_> = found.iter().flat_map(|texts| &texts.faults).cloned().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let failures: usize = found.iter().map(|texts| texts.failures).sum();
    assert!(failures > 40, "only {failures} failures were found: does this test still see them?");
    let resolved: usize = found.iter().map(|texts| texts.resolved).sum();
    assert!(resolved > 5, "only {resolved} hints are constants: does this test still see them?");
    let warnings: usize = found.iter().map(|texts| texts.warnings).sum();
    assert!(warnings > 1, "only {warnings} warnings were found: does this test still see them?");
}

#[test]
fn every_error_of_the_library_and_the_system_says_what_to_do() {
    for failure in samples::all() {
        let said = failure.to_string();
        check_text(failure.message()).unwrap_or_else(|fault| panic!("{fault}: {said}"));
        match failure.hint() {
            Some(hint) => check_hint(hint).unwrap_or_else(|fault| panic!("{fault}: {said}")),
            None => assert!(has_advice(failure.message()), "it gives no advice: {said}"),
        }
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    let look = |source: &str| {
        let file = format!(
            "const HINT: &str = \"start it again\"; const BAD: &str = \"Start it again\";
             const MORE: &str = \"hint: start it again\"; fn f() {{ {source}; }}"
        );
        let file = syn::parse_file(&file).expect("it is Rust");
        let mut constants = Constants { path: "x".into(), ..Constants::default() };
        constants.visit_file(&file);
        let mut texts = Texts::new("x", &constants);
        texts.visit_file(&file);
        texts.faults
    };
    for good in [
        r#"Failure::new("the node is gone", "start it again")"#,
        r#"Failure::usage(format_args!("`{x}` is no port: {error}"), HINT)"#,
        r#"Failure::with_status(127, format!("{}: not found", p.display()), "check the spelling")"#,
        r#"print(format_args!("{x:.3}"))"#,
        r#"Failure::new("the node is gone", hint)"#,
        r#"let hint = match x { 1 => "start it again", _ => HINT }"#,
        r#"note("the node listens")"#,
        r#"stdio::note(format_args!("warning: {x} is not used: unset it"))"#,
        r#"note(format_args!("warning: {client}: {failure}"))"#,
        "note(MORE)",
    ] {
        assert_eq!(look(good), [""; 0], "{good}");
    }
    for bad in [
        r#"Failure::new("The node is gone", "start it again")"#,
        r#"Failure::new("the node is gone.", "start it again")"#,
        r#"Failure::new(format_args!("{x:?} is gone"), "start it again")"#,
        r#"Failure::new(format_args!("{:#?} is gone", x), "start it again")"#,
        r#"Failure::new("the node is gone", "")"#,
        r#"Failure::new("the node is gone", "Start it again")"#,
        r#"Failure::new("the node is gone", "no idea")"#,
        r#"Failure::new("the node is gone")"#,
        r#"Failure::new(error, "start it again")"#,
        r#"things.map_err(Failure::new)"#,
        r#"stdio::note(format!("{x:?}"))"#,
        r#"Failure::new("the node is gone", BAD)"#,
        r#"Failure::new("the node is gone", ELSEWHERE)"#,
        r#"Failure::new("the node is gone", if x { "start it again" } else { "no idea" })"#,
        r#"let hint = match x { 1 => "start it again", _ => "No idea" }"#,
        r#"let hint = Some(BAD)"#,
        r#"note("The node listens")"#,
        r#"note("the node listens.")"#,
        r#"stdio::note(format_args!("warning: {x} is not used"))"#,
        r#"note("hint: no idea")"#,
        "note(BAD)",
    ] {
        assert!(!look(bad).is_empty(), "{bad}");
    }
}

/// Returns the source files, without `failure`, which wraps texts from elsewhere.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the source is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() && !path.ends_with("failure") {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Named text constants, with their files.
#[derive(Default)]
struct Constants {
    path: String,
    known: Vec<(String, String, String)>,
}

impl Constants {
    /// Returns the constant of this file, or else any with this name.
    fn find(&self, path: &str, name: &str) -> Option<String> {
        let named = || self.known.iter().filter(|(_, known, _)| known == name);
        let here = named().find(|(file, _, _)| file == path).or_else(|| named().next());
        here.map(|(_, _, text)| text.clone())
    }
}

impl<'ast> Visit<'ast> for Constants {
    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        if let Some(text) = literal(&item.expr) {
            self.known.push((self.path.clone(), item.ident.to_string(), text));
        }
    }
}

/// A visitor that checks one file.
struct Texts<'a> {
    path: String,
    constants: &'a Constants,
    failures: usize,
    /// Number of hints that are constants.
    resolved: usize,
    warnings: usize,
    faults: Vec<String>,
}

impl<'a> Texts<'a> {
    fn new(path: &str, constants: &'a Constants) -> Self {
        let (path, faults) = (path.to_owned(), Vec::new());
        Texts { path, constants, failures: 0, resolved: 0, warnings: 0, faults }
    }

    /// Checks all possible hints. Values of variables and library texts are checked at their origin.
    fn check_hints(&mut self, hint: &Expr) {
        for outcome in outcomes(hint) {
            if let Some(text) = literal(outcome) {
                self.check(Some(text), check_hint);
            } else if let Some(name) = constant(outcome) {
                self.resolved += 1;
                match self.constants.find(&self.path, &name) {
                    Some(text) => self.check(Some(text), check_hint),
                    None => self.fault(&name, "a constant that this test cannot see"),
                }
            }
        }
    }

    /// Checks a line for people that is not a failure.
    fn check_note(&mut self, said: &Expr) {
        let named = || constant(said).and_then(|name| self.constants.find(&self.path, &name));
        let Some(text) = literal(said).or_else(named) else { return };
        if let Some(hint) = text.strip_prefix("hint: ") {
            self.check(Some(hint.to_owned()), check_hint);
        } else if let Some(warning) = text.strip_prefix("warning: ") {
            self.warnings += 1;
            // A failure has a separate hint.
            if !warning.ends_with("{failure}") && !has_advice(warning) {
                self.fault(warning, "a warning that does not say what to do");
            }
            self.check(Some(warning.to_owned()), check_text);
        } else {
            self.check(Some(text), check_text);
        }
    }

    fn fault(&mut self, text: &str, fault: impl std::fmt::Display) {
        self.faults.push(format!("{}: {fault}: {text}", self.path));
    }

    fn check(&mut self, text: Option<String>, check: fn(&str) -> Result<(), String>) {
        match text.as_deref().map(|text| (text, check(text))) {
            Some((_, Ok(()))) => {}
            Some((text, Err(fault))) => self.fault(text, fault),
            None => self.fault("", "a text must stand where the failure is made, or this test cannot see it"),
        }
    }
}

impl<'ast> Visit<'ast> for Texts<'_> {
    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        if let Some(at) = constructor(&call.func) {
            self.failures += 1;
            self.check(call.args.get(at).and_then(literal), check_text);
            match call.args.get(at + 1) {
                Some(hint) => self.check_hints(hint),
                None => self.fault("", "there is no hint"),
            }
        }
        if let (true, Some(said)) = (is_note(&call.func), call.args.first()) {
            self.check_note(said);
        }
        // Skips the default visit, because a called constructor is not one that is passed on.
        call.args.iter().for_each(|argument| self.visit_expr(argument));
        if constructor(&call.func).is_none() {
            self.visit_expr(&call.func);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.args.iter().any(|argument| constructor(argument).is_some()) {
            self.fault("", "a constructor is passed on, so that its text cannot be seen");
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && name.ident == "hint"
        {
            self.check_hints(&init.expr);
        }
        visit::visit_local(self, local);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        let name = called.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        // Macros that panic are for developers and are not checked.
        if matches!(name.as_str(), "format" | "format_args" | "write" | "writeln" | "json") {
            let text = called.tokens.to_string();
            if text.contains(":?}") || text.contains(":#?}") {
                self.fault(&text, "a Debug form");
            }
        }
        if let Ok(arguments) = called.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }
}

/// Returns the text's argument index, if the expression names a constructor.
fn constructor(expression: &Expr) -> Option<usize> {
    let Expr::Path(path) = expression else { return None };
    let names: Vec<_> = path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    let [.., owner, name] = &names[..] else { return None };
    CONSTRUCTORS.iter().find(|(known, _)| owner == "Failure" && name == known).map(|(_, at)| *at)
}

/// Returns true if the expression names the function that prints a line for people.
fn is_note(expression: &Expr) -> bool {
    let Expr::Path(path) = expression else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "note")
}

/// Returns the constant that an expression names.
fn constant(expression: &Expr) -> Option<String> {
    let Expr::Path(path) = expression else { return None };
    let name = path.path.segments.last()?.ident.to_string();
    let is_constant = name.chars().any(char::is_uppercase) && !name.chars().any(char::is_lowercase);
    is_constant.then_some(name)
}

/// Returns all expressions that may be an expression's value.
fn outcomes(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::Match(of) => of.arms.iter().flat_map(|arm| outcomes(&arm.body)).collect(),
        Expr::If(of) => {
            let otherwise = of.else_branch.iter().flat_map(|(_, other)| outcomes(other));
            of_block(&of.then_branch).into_iter().chain(otherwise).collect()
        }
        Expr::Block(of) => of_block(&of.block),
        Expr::Paren(of) => outcomes(&of.expr),
        Expr::Reference(of) => outcomes(&of.expr),
        // `Some` of a hint.
        Expr::Call(of) if of.args.len() == 1 => outcomes(&of.args[0]),
        other => vec![other],
    }
}

fn of_block(block: &syn::Block) -> Vec<&Expr> {
    match block.stmts.last() {
        Some(Stmt::Expr(last, None)) => outcomes(last),
        _ => Vec::new(),
    }
}

/// Returns a literal text, or the format string of a formatted one.
fn literal(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        Expr::Macro(called) => {
            let arguments =
                called.mac.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated).ok()?;
            literal(arguments.first()?)
        }
        _ => None,
    }
}

fn check_text(text: &str) -> Result<(), String> {
    let first = text.chars().next().ok_or("it is empty")?;
    // The system's texts begin with a capital, and so do some names.
    let is_name = text.starts_with("UDP ") || text.contains("(os error ");
    if first.is_uppercase() && !is_name {
        return Err("it begins with a capital".into());
    }
    check_end(text)
}

fn check_hint(hint: &str) -> Result<(), String> {
    if hint.chars().next().is_none_or(char::is_uppercase) || !has_advice(hint) {
        return Err(format!("the hint does not begin with what to do ({hint})"));
    }
    check_end(hint)
}

fn check_end(text: &str) -> Result<(), String> {
    if text.ends_with(['.', '!', '\n', ' ']) {
        return Err("it ends with a full stop".into());
    }
    // Debug output of structures, tuples, options, system errors and quoted texts.
    for debug in [":?}", "#?}", "Some(", "None)", "Ok(", "Err(", "Os {", "Error {", "{ kind: ", "\\\"", "[\""]
    {
        if text.contains(debug) {
            return Err(format!("it has a Debug form ({debug})"));
        }
    }
    Ok(())
}

/// Returns true if a text contains an instruction.
fn has_advice(text: &str) -> bool {
    const VERBS: [&str; 35] = [
        "add", "allow", "ask", "build", "check", "choose", "correct", "end", "free", "give", "install",
        "leave", "list", "look", "make", "mount", "move", "name", "restore", "remove", "report", "restart",
        "run", "run:", "send", "set", "start", "switch", "try", "unset", "upgrade", "use", "wait", "write",
        "stop",
    ];
    let clauses = text.split([';', ':', ',']).map(|clause| clause.trim_start());
    clauses.filter_map(|clause| clause.split_whitespace().next()).any(|word| VERBS.contains(&word))
}
