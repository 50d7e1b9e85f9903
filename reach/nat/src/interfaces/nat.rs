//! The NAT of an interface in P2PD's terms: a type and a delta, each with its number and name.

use serde::{Deserialize, Serialize};

use crate::behavior::{Delta, DeltaKind, Mapping, Nat, NatKind};

/// The NAT in front of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceNat {
    /// The kind; the worst is assumed for unknown properties.
    pub kind: NatKind,
    /// Rule by which mapped ports follow each other; `None` without NAT, where it has no meaning.
    pub delta: Option<Delta>,
    /// True if the kind was determined, false if it was assumed.
    pub is_known: bool,
}

/// P2PD's numbers.
const KINDS: [(NatKind, u8); 7] = [
    (NatKind::Open, 1),
    (NatKind::Firewall, 2),
    (NatKind::FullCone, 3),
    (NatKind::Restrict, 4),
    (NatKind::RestrictPort, 5),
    (NatKind::Symmetric, 6),
    (NatKind::Filtered, 7),
];
const NOT_APPLICABLE: u8 = 1;
const DELTAS: [(DeltaKind, u8); 5] = [
    (DeltaKind::Equal, 2),
    (DeltaKind::Preserving, 3),
    (DeltaKind::Independent, 4),
    (DeltaKind::Dependent, 5),
    (DeltaKind::Random, 6),
];

#[derive(Serialize, Deserialize)]
struct Dict {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    nat_info: String,
    delta: DeltaDict,
    #[serde(default)]
    delta_info: String,
    #[serde(default)]
    is_known: bool,
}

#[derive(Serialize, Deserialize)]
struct DeltaDict {
    #[serde(rename = "type")]
    kind: u8,
    value: i16,
}

impl InterfaceNat {
    /// Returns the assumption before anything is known: restrict port, random.
    pub fn assumed() -> Self {
        let delta = Some(Delta { kind: DeltaKind::Random, value: 0 });
        Self { kind: NatKind::RestrictPort, delta, is_known: false }
    }

    /// Converts the determined NAT into these terms.
    pub fn of(nat: &Nat) -> Self {
        let assumed = Self::assumed();
        let guess = match (nat.translated, nat.mapping) {
            (Some(false), _) => NatKind::Firewall,
            (Some(true), Some(Mapping::EndpointIndependent) | None) | (None, _) => assumed.kind,
            (Some(true), Some(_)) => NatKind::Symmetric,
        };
        Self {
            kind: nat.kind().unwrap_or(guess),
            delta: nat.delta.or(assumed.delta).filter(|_| nat.translated != Some(false)),
            is_known: nat.kind().is_some(),
        }
    }
}

impl Serialize for InterfaceNat {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind).map(|(_, number)| *number);
        let number =
            |delta: Delta| DELTAS.iter().find(|(kind, _)| *kind == delta.kind).map(|(_, number)| *number);
        let delta = self.delta.map_or(Some(NOT_APPLICABLE), number);
        Dict {
            kind: kind.expect("every kind has a number"),
            nat_info: self.kind.to_string(),
            delta: DeltaDict {
                kind: delta.expect("every delta has a number"),
                value: self.delta.map_or(0, |delta| delta.value),
            },
            delta_info: self.delta.map_or_else(|| "not applicable".into(), |delta| delta.kind.to_string()),
            is_known: self.is_known,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for InterfaceNat {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dict = Dict::deserialize(deserializer)?;
        let unknown = |what: &str, number: u8| serde::de::Error::custom(format!("{number} is no {what}"));
        let kind = KINDS.iter().find(|(_, number)| *number == dict.kind);
        let delta = match dict.delta.kind {
            NOT_APPLICABLE => None,
            number => {
                let known = DELTAS.iter().find(|(_, known)| *known == number);
                let (kind, _) = known.ok_or_else(|| unknown("type of delta", number))?;
                Some(Delta { kind: *kind, value: dict.delta.value })
            }
        };
        let kind = kind.ok_or_else(|| unknown("type of NAT", dict.kind))?.0;
        Ok(Self { kind, delta, is_known: dict.is_known })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_delta_is_read_as_it_was_written() {
        for (kind, _) in KINDS {
            for (delta, _) in DELTAS {
                let delta = Some(Delta { kind: delta, value: -3 });
                let nat = InterfaceNat { kind, delta, is_known: true };
                let text = serde_json::to_string(&nat).expect("it can be written");
                assert_eq!(serde_json::from_str::<InterfaceNat>(&text).expect("it can be read"), nat);
            }
        }
        let open = concat!(
            r#"{"type":1,"nat_info":"open internet","delta":{"type":1,"value":0},"#,
            r#""delta_info":"not applicable","is_known":true}"#
        );
        let read: InterfaceNat = serde_json::from_str(open).expect("it can be read");
        assert_eq!(serde_json::to_string(&read).expect("it can be written"), open);
    }
}
