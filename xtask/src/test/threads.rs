//! Checks that a failure to start a thread or a process is an error, and not a panic, because limits on
//! processes and memory are common.
//!
//! `std::thread::spawn` and `Scope::spawn` panic then, and so do tokio's runtime of several threads and its
//! threads for blocking work. `thread::Builder` returns the error, `peersock_primitives::beside` does the
//! work on the calling thread, and `peersock_primitives::blocking` is for tasks.

use std::fs;

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Expr, ExprCall, ExprMethodCall, Ident, ItemFn, ItemMod, Macro, Path, Token, UsePath, UseTree};

use super::debug_forms::{TOOLS, is_test};
use super::sources::rust_files;
use super::workspace::Package;
use crate::{Result, root};

/// Functions that panic if no thread can be started, whatever stands before them.
const NAMES: [&str; 3] = ["lookup_host", "new_multi_thread", "spawn_blocking"];

/// Functions that panic then, and have namesakes that do not.
const PATHS: [[&str; 2]; 3] = [["Runtime", "new"], ["Scope", "spawn"], ["thread", "spawn"]];

/// Names of scopes, whose method `spawn` panics.
const SCOPES: [&str; 2] = ["s", "scope"];

/// Methods and functions that return an error if a thread, a process or a runtime cannot be started.
const STARTS: [&str; 5] =
    ["new_current_thread", "spawn", "spawn_scoped", "spawn_unchecked", "spawn_unchecked_scoped"];

/// Methods that turn an error into a panic.
const PANICS: [&str; 2] = ["expect", "unwrap"];

/// Returns the calls in a crate's source code, except in tests.
/// Fails if a file cannot be read.
pub(super) fn complaints(package: &Package) -> Result<Vec<String>> {
    if TOOLS.contains(&package.name.as_str()) {
        return Ok(Vec::new());
    }
    let mut complaints = Vec::new();
    // Only fuzz targets call the modules `fuzzing`.
    let is_product = |file: &std::path::PathBuf| !file.ends_with("fuzzing.rs");
    for file in rust_files(&package.manifest.with_file_name("src"))?.into_iter().filter(is_product) {
        let name = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
        complaints.extend(panics(&fs::read_to_string(&file)?)?.into_iter().map(|call| {
            format!("{name}: `{call}` panics where no thread can be started (see xtask/src/test/threads.rs)")
        }));
    }
    Ok(complaints)
}

fn panics(source: &str) -> Result<Vec<String>> {
    let mut calls = Calls::default();
    calls.visit_file(&syn::parse_file(source)?);
    Ok(calls.found)
}

#[derive(Default)]
struct Calls {
    found: Vec<String>,
    /// Number of calls of `catch_unwind` around this place.
    caught: usize,
}

impl<'ast> Visit<'ast> for Calls {
    fn visit_ident(&mut self, name: &'ast Ident) {
        if self.caught == 0 && NAMES.iter().any(|panics| name == panics) {
            self.found.push(name.to_string());
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let last: Vec<_> = path.segments.iter().rev().take(2).map(|part| &part.ident).collect();
        if let [name, of] = last[..]
            && PATHS.iter().any(|panics| of == panics[0] && name == panics[1])
        {
            self.found.push(format!("{of}::{name}"));
        }
        visit::visit_path(self, path);
    }

    /// Finds imports of `thread::spawn` and of everything in `thread`.
    fn visit_use_path(&mut self, path: &'ast UsePath) {
        fn has_spawn(tree: &UseTree) -> bool {
            match tree {
                UseTree::Name(name) => name.ident == "spawn",
                UseTree::Rename(name) => name.ident == "spawn" || name.ident == "self",
                UseTree::Group(group) => group.items.iter().any(has_spawn),
                UseTree::Glob(_) => true,
                UseTree::Path(_) => false,
            }
        }
        if path.ident == "thread" && has_spawn(&path.tree) {
            self.found.push("use thread::spawn".to_owned());
        }
        visit::visit_use_path(self, path);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let of_scope = |scope: &&str| matches!(&*call.receiver, Expr::Path(of) if of.path.is_ident(scope));
        if call.method == "spawn" && SCOPES.iter().any(of_scope) {
            self.found.push("Scope::spawn".to_owned());
        }
        if PANICS.iter().any(|panics| call.method == panics) && is_start(&call.receiver) {
            self.found.push(format!("spawn(…).{}", call.method));
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        let last =
            |path: &syn::ExprPath| path.path.segments.last().is_some_and(|name| name.ident == "catch_unwind");
        let catches = usize::from(matches!(&*call.func, Expr::Path(path) if last(path)));
        self.caught += catches;
        visit::visit_expr_call(self, call);
        self.caught -= catches;
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        if let Ok(arguments) = called.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            arguments.iter().for_each(|argument| self.visit_expr(argument));
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        if !is_test(&function.attrs) {
            visit::visit_item_fn(self, function);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }
}

/// Returns true if an expression is the result of a start, or made from it by methods of `Result` or a
/// builder.
fn is_start(expression: &Expr) -> bool {
    let is_one = |name: &Ident| STARTS.iter().any(|start| name == start);
    match expression {
        Expr::MethodCall(call) => is_one(&call.method) || is_start(&call.receiver),
        Expr::Call(call) => match &*call.func {
            Expr::Path(path) => path.path.segments.last().is_some_and(|last| is_one(&last.ident)),
            _ => false,
        },
        Expr::Paren(inner) => is_start(&inner.expr),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_panic_are_found() {
        for (code, call) in [
            ("std::thread::spawn(move || 1);", "thread::spawn"),
            ("let start = thread::spawn;", "thread::spawn"),
            ("use std::thread::{self, spawn};", "use thread::spawn"),
            ("use std::thread::{self as t};", "use thread::spawn"),
            ("use std::thread::*;", "use thread::spawn"),
            ("scope\n    .spawn(|| 1);", "Scope::spawn"),
            ("thread::scope(|s| { s.spawn(|| 1); });", "Scope::spawn"),
            ("Builder::new().spawn(f).expect(\"a thread\");", "spawn(…).expect"),
            ("(builder.spawn_scoped(scope, f)).map_err(tell).unwrap();", "spawn(…).unwrap"),
            ("assert!(builder.spawn(f).unwrap().is_finished());", "spawn(…).unwrap"),
            ("Builder::new_current_thread().build().expect(\"one\");", "spawn(…).expect"),
            ("Builder::new_multi_thread().build()?;", "new_multi_thread"),
            ("Runtime::new()?;", "Runtime::new"),
            ("tokio::task::spawn_blocking(f).await?;", "spawn_blocking"),
            ("use tokio::net::{TcpStream, lookup_host};", "lookup_host"),
        ] {
            let found = panics(&format!("fn function() {{ {code} }}")).expect(code);
            assert_eq!(found, [call], "{code}");
        }
    }

    #[test]
    fn returned_errors_comments_and_tests_are_allowed() {
        for code in [
            "/// thread::spawn(f)\nfn f() {}",
            "fn f() { thread::Builder::new().spawn(f)?.join().expect(\"no panic\"); }",
            "fn f() { tasks.spawn(f); tokio::spawn(work); beside(scope, f).join().unwrap(); }",
            "fn f() { catch_unwind(|| Builder::new_multi_thread().build()); }",
            "#[cfg(test)]\nmod tests { fn f() { thread::spawn(f); } }",
            "#[test]\nfn f() { thread::spawn(f).join().unwrap(); }",
        ] {
            assert_eq!(panics(code).expect(code), [""; 0], "{code}");
        }
    }
}
