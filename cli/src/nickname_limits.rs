//! Options of a root for the nicknames that it keeps.

use peersock_root::Limits;

/// Bounds on the nicknames that nodes claim.
#[derive(clap::Args)]
pub(crate) struct NicknameLimits {
    /// Store at most N nicknames, about 400 bytes each; 0 stores none
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    max_nicknames: usize,

    /// Store at most N nicknames of one node; nodes of this version claim up to four
    #[arg(long, value_name = "N", default_value_t = 4)]
    max_nicknames_per_node: u32,

    /// Store at most N nicknames of the nodes in one IPv4 /24 or IPv6 /56
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_nicknames_per_prefix: u32,

    /// Drop a nickname SECONDS after its last claim, unless its node claims it again; at least 10
    ///
    /// Nodes claim their nicknames every 200 s, and sooner if the limit requires it.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(10..))]
    #[arg(default_value_t = 3600)]
    max_nickname_lifetime: u32,
}

impl NicknameLimits {
    /// Applies the options to a root's limits.
    pub(crate) fn apply(&self, limits: &mut Limits) {
        limits.nicknames = self.max_nicknames;
        limits.nicknames_per_node = self.max_nicknames_per_node;
        limits.nicknames_per_prefix = self.max_nicknames_per_prefix;
        limits.nickname_lifetime = self.max_nickname_lifetime;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        limits: NicknameLimits,
    }

    fn parsed(words: &[&str]) -> Result<[u64; 4], clap::Error> {
        let line = Line::try_parse_from(["root"].iter().chain(words))?;
        let mut limits = Limits { nicknames: 1, nicknames_per_node: 1, ..Limits::default() };
        line.limits.apply(&mut limits);
        let [node, prefix, lifetime] =
            [limits.nicknames_per_node, limits.nicknames_per_prefix, limits.nickname_lifetime].map(u64::from);
        Ok([limits.nicknames as u64, node, prefix, lifetime])
    }

    #[test]
    fn limits_of_nicknames_are_the_library_s_unless_they_are_said() {
        let usual = Limits::default();
        let [node, prefix, lifetime] =
            [usual.nicknames_per_node, usual.nicknames_per_prefix, usual.nickname_lifetime].map(u64::from);
        assert_eq!(parsed(&[]).unwrap(), [usual.nicknames as u64, node, prefix, lifetime]);
        let words = ["--max-nicknames", "0", "--max-nicknames-per-node", "7"];
        assert_eq!(parsed(&words).unwrap(), [0, 7, prefix, lifetime]);
        let words = ["--max-nicknames-per-prefix", "8", "--max-nickname-lifetime", "10"];
        assert_eq!(parsed(&words).unwrap(), [usual.nicknames as u64, node, 8, 10]);
        assert!(parsed(&["--max-nickname-lifetime", "9"]).is_err(), "it would be over before it is of use");
    }
}
