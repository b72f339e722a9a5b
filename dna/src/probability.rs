//! A probability in hundredths: exact, ordered and equal on every machine, where a float is not.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How often an item of this kind was seen where it was predicted, in hundredths; in JSON a number with two decimals, `0.87`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probability(u8);

impl Probability {
    /// The nearest hundredth; none where the value is no probability.
    pub fn new(value: f64) -> Option<Self> {
        if !(0.0..=1.0).contains(&value) {
            return None;
        }
        (0..=100u8).find(|hundredths| value * 100.0 < f64::from(*hundredths) + 0.5).map(Self)
    }

    /// The probability in hundredths, 0 to 100.
    pub fn hundredths(self) -> u8 {
        self.0
    }

    /// The probability as a number from 0 to 1.
    pub fn value(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl fmt::Display for Probability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

impl Serialize for Probability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value())
    }
}

impl<'de> Deserialize<'de> for Probability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = f64::deserialize(deserializer)?;
        Self::new(value).ok_or_else(|| serde::de::Error::custom("a probability is a number from 0 to 1"))
    }
}

impl JsonSchema for Probability {
    fn schema_name() -> Cow<'static, str> {
        "Probability".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How often an item of this kind was seen where it was predicted; two decimals.",
            "type": "number",
            "minimum": 0,
            "maximum": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hundredths_round_trip_as_numbers() {
        for hundredths in 0..=100u8 {
            let probability = Probability(hundredths);
            let json = serde_json::to_string(&probability).expect("a number");
            assert!(json.len() <= 4, "{json}");
            assert_eq!(serde_json::from_str::<Probability>(&json).ok(), Some(probability), "{json}");
        }
        assert_eq!(Probability::new(0.869).map(|it| it.to_string()).as_deref(), Some("0.87"));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for text in ["1.01", "-0.1", "\"0.5\"", "null"] {
            assert!(serde_json::from_str::<Probability>(text).is_err(), "{text}");
        }
        assert_eq!(Probability::new(f64::NAN), None);
    }
}
