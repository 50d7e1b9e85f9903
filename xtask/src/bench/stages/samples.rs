//! Samples taken by perf(1).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Result;

/// Activity of a processor at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) process: u32,
    /// The running function, its caller, and so on. In a program only the first one is certain, because perf
    /// finds callers by frame pointers, which programs lack. Kernel functions are all correct.
    pub(super) functions: Vec<Function>,
}

/// A function, and whether its file belongs to the kernel.
#[derive(Debug, PartialEq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) is_kernel: bool,
}

impl Function {
    fn new(name: &str, file: &str) -> Function {
        // This includes `[kernel.vmlinux]`, where the system has that file.
        Function { name: name.to_owned(), is_kernel: file.starts_with("[kernel") }
    }
}

impl Sample {
    /// Returns true if the sample is of a kernel thread.
    pub(super) fn is_kernel_thread(&self) -> bool {
        self.functions.last().is_some_and(|function| function.is_kernel)
            && self.functions.iter().any(|function| function.name == "kthread")
    }

    /// Makes a sample of these functions, each with its file.
    #[cfg(test)]
    pub(super) fn of(process: u32, functions: &[(&str, &str)]) -> Sample {
        let function = |(name, file): &(&str, &str)| Function::new(name, file);
        Sample { process, functions: functions.iter().map(function).collect() }
    }
}

/// Reads the file that `perf record` has written.
/// Fails if perf(1) fails, or has no samples.
pub(super) fn read(file: &Path) -> Result<Vec<Sample>> {
    let output = Command::new("perf")
        .args(["script", "--no-inline", "--fields", "pid,ip,sym,dso", "--input"])
        .arg(file)
        .stdin(Stdio::null())
        .output()?;
    let samples = parse(&String::from_utf8_lossy(&output.stdout));
    if samples.is_empty() || !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("perf script shows nothing: {}", said.trim()).into());
    }
    Ok(samples)
}

/// Parses the text of `perf script`: the process on one line, then one line per function, innermost first.
fn parse(text: &str) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for line in text.lines() {
        let words = line.trim();
        if let Ok(process) = words.parse() {
            samples.push(Sample { process, functions: Vec::new() });
        } else if let (Some(sample), Some(function)) = (samples.last_mut(), function(words)) {
            sample.functions.push(function);
        }
    }
    samples.retain(|sample| !sample.functions.is_empty());
    samples
}

/// Parses a line such as `7f12ab memcpy (/lib/libc.so.6)`.
fn function(line: &str) -> Option<Function> {
    let (_, rest) = line.split_once(' ')?;
    let (name, file) = rest.rsplit_once(" (")?;
    Some(Function::new(name, file.strip_suffix(')')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "[kernel.kallsyms]";

    #[test]
    fn functions_are_read_from_the_inside() {
        let text = "   17 \n\tffffffff8 copy_user_generic_string ([kernel.kallsyms])\n\
                    \tffffffff9 __x64_sys_recvmsg ([kernel.kallsyms])\n\
                    \t   7f0000 <peersock::Node as core::fmt::Debug>::fmt (inside) (/a (b)/bin)\n\n\
                    18 \n\t   55 [unknown] (/bin/x)\n\n   19 \n\n";
        let samples = parse(text);
        let names: Vec<Vec<_>> = samples
            .iter()
            .map(|sample| sample.functions.iter().map(|f| (f.name.as_str(), f.is_kernel)).collect())
            .collect();
        let first = [
            ("copy_user_generic_string", true),
            ("__x64_sys_recvmsg", true),
            ("<peersock::Node as core::fmt::Debug>::fmt (inside) (/a", false),
        ];
        assert_eq!(names, [first.to_vec(), vec![("[unknown]", false)]]);
        assert_eq!(samples.iter().map(|sample| sample.process).collect::<Vec<_>>(), [17, 18]);
    }

    #[test]
    fn threads_of_the_kernel_are_known_by_where_they_begin() {
        let kernel = |name| (name, KERNEL);
        assert!(
            Sample::of(9, &[kernel("run_ksoftirqd"), kernel("kthread"), kernel("ret_from_fork")])
                .is_kernel_thread()
        );
        assert!(!Sample::of(9, &[kernel("do_idle"), kernel("secondary_startup_64")]).is_kernel_thread());
        assert!(!Sample::of(9, &[("kthread", "/bin/x")]).is_kernel_thread());
    }
}
