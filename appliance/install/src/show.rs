//! What is shown to the admin: findings as a table, steps as a list.

use crate::preflight::Finding;
use unicode_width::UnicodeWidthStr;

/// The findings: weight, what was looked at, what was found, and below it what would help.
pub(crate) fn findings(findings: &[Finding]) -> String {
    let wide = |width: fn(&Finding) -> usize| findings.iter().map(width).max().unwrap_or(0);
    let (first, second) = (
        wide(|f| f.weight.to_string().width()),
        wide(|f| f.what.width()),
    );
    let mut text = String::new();
    for finding in findings {
        let fill = second - finding.what.width();
        text.push_str(&format!(
            "{:first$}  {}{:fill$}  {}\n",
            finding.weight, finding.what, "", finding.found
        ));
        if !finding.remedy.is_empty() {
            let indent = first + second + 4;
            text.push_str(&format!("{:indent$}→ {}\n", "", finding.remedy));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::Weight;

    #[test]
    fn columns_stand_under_each_other() {
        let finding = |weight, what: &str, remedy: &str| Finding {
            weight,
            what: what.into(),
            found: "found".into(),
            remedy: remedy.into(),
        };
        assert_eq!(
            findings(&[
                finding(Weight::Good, "clock", ""),
                finding(Weight::Refused, "disk room", "make room"),
            ]),
            "ok       clock      found\n\
             REFUSED  disk room  found\n\
             \x20                   → make room\n"
        );
    }
}
