//! Description of the measuring machine, to be quoted with the figures.

use std::fmt;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// Properties of the machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    /// The processor's own name.
    model: String,
    processors: usize,
    /// Number of processors that this process may use.
    usable: usize,
    /// True if the processor reports a hypervisor. None if it does not report that, as on ARM.
    is_virtual: Option<bool>,
    /// Release and architecture.
    kernel: String,
    /// Today in UTC, YYYY-MM-DD.
    date: String,
}

impl Machine {
    /// Reads the properties of this machine.
    pub(crate) fn this() -> Machine {
        let names = rustix::system::uname();
        let kernel = format!("{} ({})", names.release().to_string_lossy(), names.machine().to_string_lossy());
        let date = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
        let date = date.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Machine::of(&cpuinfo, usable, kernel, date.unwrap_or_default())
    }

    /// Returns the machine as JSON, with the fields' names.
    pub(crate) fn json(&self) -> Value {
        json!({
            "model": self.model, "processors": self.processors, "usable_processors": self.usable,
            "virtual": self.is_virtual, "kernel": self.kernel, "date": self.date,
        })
    }

    fn of(cpuinfo: &str, usable: usize, kernel: String, date: String) -> Machine {
        let fields = || cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let field = |name: &str| fields().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        let processors = fields().filter(|(key, _)| key.trim() == "processor").count();
        Machine {
            model: field("model name").unwrap_or("a processor without a name").to_owned(),
            processors: processors.max(usable),
            usable,
            is_virtual: field("flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel,
            date,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.model)?;
        if self.usable < self.processors {
            write!(f, "{} of ", self.usable)?;
        }
        let plural = if self.processors == 1 { "" } else { "s" };
        write!(f, "{} processor{plural}, ", self.processors)?;
        f.write_str(match self.is_virtual {
            Some(true) => "virtual machine, ",
            Some(false) => "not virtual, ",
            None => "",
        })?;
        write!(f, "Linux {}, {}", self.kernel, self.date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cpuinfo: &str, usable: usize) -> String {
        Machine::of(cpuinfo, usable, "6.18 (x86_64)".to_owned(), "2026-01-02".to_owned()).to_string()
    }

    #[test]
    fn the_machine_is_named_with_whether_it_is_virtual() {
        let one = "processor\t: 0\nmodel name\t: A <Fast> CPU @ 2:3\nflags\t\t: fpu hypervisor sse\n\n";
        assert_eq!(
            text(&one.repeat(2), 2),
            "A <Fast> CPU @ 2:3, 2 processors, virtual machine, Linux 6.18 (x86_64), 2026-01-02"
        );
        let bare = one.replace("hypervisor ", "").repeat(4);
        assert!(text(&bare, 1).contains(", 1 of 4 processors, not virtual, "), "{}", text(&bare, 1));
    }

    #[test]
    fn what_a_processor_does_not_say_is_left_out() {
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd\n";
        assert_eq!(text(arm, 1), "a processor without a name, 1 processor, Linux 6.18 (x86_64), 2026-01-02");
    }
}
