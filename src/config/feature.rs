//! Features of the crate that a build may lack, and the error for a missing one.

use std::io;

use thiserror::Error;

/// Error for a setting that needs a feature which this build of the library lacks.
///
/// ```
/// # use peersock::MissingFeature;
/// fn explain(error: &MissingFeature) -> String {
///     format!("build with --features peersock/{}", error.feature)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{what} needs the feature `{feature}` of the crate peersock, which this program was built without; add it \
     in the program's Cargo.toml"
)]
#[non_exhaustive]
pub struct MissingFeature {
    /// Name of the setting.
    pub what: String,
    /// Name of the feature.
    pub feature: &'static str,
}

impl From<MissingFeature> for io::Error {
    fn from(error: MissingFeature) -> io::Error {
        io::Error::new(io::ErrorKind::Unsupported, error)
    }
}

/// Feature of the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    AwsLc,
    Dht,
    Dns,
    Portmap,
    StaticNetworks,
    Streams,
    Tls,
    Turn,
}

impl Feature {
    /// Returns true if this build has the feature.
    pub(crate) const fn is_there(self) -> bool {
        match self {
            Feature::AwsLc => cfg!(feature = "aws-lc"),
            Feature::Dht => cfg!(feature = "dht"),
            Feature::Dns => cfg!(feature = "dns"),
            Feature::Portmap => cfg!(feature = "portmap"),
            Feature::StaticNetworks => cfg!(feature = "static-networks"),
            Feature::Streams => cfg!(feature = "streams"),
            Feature::Tls => cfg!(feature = "tls"),
            Feature::Turn => cfg!(feature = "turn"),
        }
    }

    /// Fails with an error about `what` unless this build has the feature.
    pub(crate) fn require(self, what: impl ToString) -> Result<(), MissingFeature> {
        if self.is_there() { Ok(()) } else { Err(self.missing(what)) }
    }

    /// Returns the error that `what` needs the feature.
    pub(crate) fn missing(self, what: impl ToString) -> MissingFeature {
        MissingFeature { what: what.to_string(), feature: self.name() }
    }

    fn name(self) -> &'static str {
        match self {
            Feature::AwsLc => "aws-lc",
            Feature::Dht => "dht",
            Feature::Dns => "dns",
            Feature::Portmap => "portmap",
            Feature::StaticNetworks => "static-networks",
            Feature::Streams => "streams",
            Feature::Tls => "tls",
            Feature::Turn => "turn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_feature() {
        let error = Feature::Dht.missing("the DHT").to_string();
        assert!(error.starts_with("the DHT needs the feature `dht` of the crate peersock"), "{error}");
        for feature in [
            Feature::Dht,
            Feature::Dns,
            Feature::Portmap,
            Feature::StaticNetworks,
            Feature::Streams,
            Feature::Tls,
            Feature::Turn,
        ] {
            assert_eq!(feature.require("it").is_ok(), feature.is_there(), "{}", feature.name());
        }
    }
}
