//! What a daemon answered: handed on as it is for programs, or read as a type of the contract.

use crate::failure::{Done, Failure, Outcome};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The answer as it is in the contract, for programs.
pub(crate) fn json(answer: &Value) -> Outcome {
    let text = serde_json::to_string_pretty(answer)
        .map_err(|error| anyhow::Error::new(error).context("writing the answer as json"))?;
    Ok(Done::text(text + "\n"))
}

/// The answer as a type of the contract; `what` is for the message.
pub(crate) fn read<T: DeserializeOwned>(answer: &Value, what: &str) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|error| {
        Failure::from(anyhow::Error::new(error).context(format!("reading {what}")))
            .or_next("dtnctl and the daemon may be of different versions: compare --version")
    })
}

/// The items of a list.
pub(crate) fn items<T: DeserializeOwned>(list: &Value, what: &str) -> Result<Vec<T>, Failure> {
    read(list.get("items").unwrap_or(list), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_version_is_told_as_that() {
        let failure = read::<u32>(&serde_json::json!("x"), "the count").unwrap_err();
        assert_eq!(
            failure.message(),
            "dtnctl: reading the count: invalid type: string \"x\", expected u32\n\
             next: dtnctl and the daemon may be of different versions: compare --version\n"
        );
    }
}
