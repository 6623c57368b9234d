//! Users and groups: which the files of systemd-sysusers ask for, and how `/etc/passwd`,
//! `/etc/group` and their shadows look with and without them. Pure.
//!
//! They are written here and not by useradd, so that taking them back leaves every other byte as it
//! was: no copies with a dash, no changed order.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// A user (with a group of the same name), a group, or a membership.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Account {
    /// A system user without a password, and its group.
    User {
        name: String,
        about: String,
        home: String,
    },
    /// A group.
    Group { name: String },
    /// A user belongs to a group.
    Member { user: String, group: String },
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, .. } => write!(f, "user {name}"),
            Self::Group { name } => write!(f, "group {name}"),
            Self::Member { user, group } => write!(f, "{user} in group {group}"),
        }
    }
}

/// The four files. A host without shadows of groups has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Files {
    pub(crate) passwd: String,
    pub(crate) group: String,
    pub(crate) shadow: Option<String>,
    pub(crate) gshadow: Option<String>,
}

/// Numbers of system accounts that are given out, from the top: what Debian's login.defs and
/// systemd-sysusers take.
const NUMBERS: std::ops::RangeInclusive<u32> = 100..=999;

/// Reads a file of sysusers.d(5): users and groups whose number the host chooses, and memberships.
pub(crate) fn parse(text: &str) -> Result<Vec<Account>> {
    let mut accounts = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words = words(line);
        let word = |n: usize| {
            let word = words.get(n).map(String::as_str).unwrap_or("-");
            if word == "-" { "" } else { word }
        };
        if word(1).is_empty() {
            bail!("sysusers: the line {line:?} names nobody");
        }
        match word(0).trim_end_matches('!') {
            "u" if word(2).is_empty() => accounts.push(Account::User {
                name: word(1).into(),
                about: word(3).into(),
                home: if word(4).is_empty() { "/" } else { word(4) }.into(),
            }),
            "g" if word(2).is_empty() => accounts.push(Account::Group {
                name: word(1).into(),
            }),
            "m" => accounts.push(Account::Member {
                user: word(1).into(),
                group: word(2).into(),
            }),
            _ => bail!("sysusers: the line {line:?} is of a kind that is not known here"),
        }
    }
    Ok(accounts)
}

/// Words, of which one may stand in quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, any) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// Those of the wanted that are not there.
pub(crate) fn missing(files: &Files, wanted: &[Account]) -> Vec<Account> {
    let absent = |account: &&Account| match account {
        Account::User { name, .. } => !has(&files.passwd, name),
        Account::Group { name } => !has(&files.group, name),
        Account::Member { user, group } => !members(&files.group, group).any(|m| m == user),
    };
    wanted.iter().filter(absent).cloned().collect()
}

/// The files with these accounts, which are not there yet.
pub(crate) fn added(files: &Files, accounts: &[Account]) -> Result<Files> {
    let mut files = files.clone();
    for account in accounts {
        match account {
            Account::User { name, about, home } => {
                let number = free(&files, Some(name))?;
                let group = match number_of(&files.group, name) {
                    Some(group) => group,
                    None => {
                        add_group(&mut files, name, number);
                        number
                    }
                };
                let line = format!("{name}:x:{number}:{group}:{about}:{home}:/usr/sbin/nologin");
                files.passwd = with_line(&files.passwd, &line);
                // no password, and no day of its change: nobody can log in
                files.shadow = files
                    .shadow
                    .map(|text| with_line(&text, &format!("{name}:!*:1::::::")));
            }
            Account::Group { name } => {
                let number = free(&files, None)?;
                add_group(&mut files, name, number);
            }
            Account::Member { user, group } => {
                files.group = with_member(&files.group, user, group);
                files.gshadow = files.gshadow.map(|text| with_member(&text, user, group));
            }
        }
    }
    Ok(files)
}

/// The files without these accounts, whatever others did to the files since.
pub(crate) fn removed(files: &Files, accounts: &[Account]) -> Files {
    let mut files = files.clone();
    for account in accounts.iter().rev() {
        match account {
            Account::User { name, .. } => {
                files.passwd = without_line(&files.passwd, name);
                files.shadow = files.shadow.map(|text| without_line(&text, name));
                remove_group(&mut files, name);
            }
            Account::Group { name } => remove_group(&mut files, name),
            Account::Member { user, group } => {
                files.group = without_member(&files.group, user, group);
                files.gshadow = files.gshadow.map(|text| without_member(&text, user, group));
            }
        }
    }
    files
}

/// The user's or group's number in a passwd or group file.
pub(crate) fn number_of(text: &str, name: &str) -> Option<u32> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn has(text: &str, name: &str) -> bool {
    text.lines()
        .any(|line| line.split(':').next() == Some(name))
}

fn members<'a>(text: &'a str, group: &str) -> impl Iterator<Item = &'a str> {
    let line = text
        .lines()
        .find(|line| line.split(':').next() == Some(group));
    line.and_then(|line| line.rsplit(':').next())
        .unwrap_or_default()
        .split(',')
        .filter(|member| !member.is_empty())
}

/// A number that neither a user nor a group has; that of the user's own group, if it may.
fn free(files: &Files, like: Option<&str>) -> Result<u32> {
    let numbers = |text: &str| -> BTreeSet<u32> {
        let number = |line: &str| line.split(':').nth(2)?.parse().ok();
        text.lines().filter_map(number).collect()
    };
    let (users, groups) = (numbers(&files.passwd), numbers(&files.group));
    if let Some(own) = like.and_then(|name| number_of(&files.group, name))
        && !users.contains(&own)
    {
        return Ok(own);
    }
    match NUMBERS
        .rev()
        .find(|number| !users.contains(number) && !groups.contains(number))
    {
        Some(number) => Ok(number),
        None => bail!("no number from 100 to 999 is free for a system account: remove one"),
    }
}

fn add_group(files: &mut Files, name: &str, number: u32) {
    files.group = with_line(&files.group, &format!("{name}:x:{number}:"));
    let shadow = files.gshadow.take();
    files.gshadow = shadow.map(|text| with_line(&text, &format!("{name}:!*::")));
}

fn remove_group(files: &mut Files, name: &str) {
    files.group = without_line(&files.group, name);
    let shadow = files.gshadow.take();
    files.gshadow = shadow.map(|text| without_line(&text, name));
}

/// At the end, but before what NIS adds (`+` and `-` lines come last).
fn with_line(text: &str, line: &str) -> String {
    let mut at = text.len();
    let mut start = 0;
    for existing in text.split_inclusive('\n') {
        if existing.starts_with(['+', '-']) {
            at = start;
            break;
        }
        start += existing.len();
    }
    let (before, after) = text.split_at(at);
    let gap = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{before}{gap}{line}\n{after}")
}

fn without_line(text: &str, name: &str) -> String {
    text.split_inclusive('\n')
        .filter(|line| line.trim_end_matches('\n').split(':').next() != Some(name))
        .collect()
}

fn with_member(text: &str, user: &str, group: &str) -> String {
    change_group(text, group, |members| {
        if !members.contains(&user) {
            members.push(user);
        }
    })
}

fn without_member(text: &str, user: &str, group: &str) -> String {
    change_group(text, group, |members| members.retain(|m| *m != user))
}

fn change_group<'a>(text: &'a str, group: &str, change: impl Fn(&mut Vec<&'a str>)) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            let plain = line.trim_end_matches('\n');
            if plain.split(':').next() != Some(group) {
                return line.to_owned();
            }
            let (head, list) = plain.rsplit_once(':').unwrap_or((plain, ""));
            let mut members: Vec<&str> = list.split(',').filter(|m| !m.is_empty()).collect();
            change(&mut members);
            let end = if line.ends_with('\n') { "\n" } else { "" };
            format!("{head}:{}{end}", members.join(","))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Files {
        Files {
            passwd: "root:x:0:0:root:/root:/bin/bash\nsshd:x:998:65534::/run:/bin/false\n".into(),
            group: "root:x:0:\nadm:x:4:alice\nsystemd-x:x:999:\n".into(),
            shadow: Some("root:*:1::::::\nsshd:!:1::::::\n".into()),
            gshadow: Some("root:*::\nadm:*::alice\nsystemd-x:!*::\n".into()),
        }
    }

    const SYSUSERS: &str = "# who we are\ng dtn - -\nu dtn-vdn - \"The domain's controller\" /var/lib/dtn/vdn -\nm dtn-vdn dtn\n";

    #[test]
    fn what_was_added_is_taken_back_to_the_byte() {
        let wanted = parse(SYSUSERS).unwrap();
        assert_eq!(wanted.len(), 3);
        let nis = Files {
            passwd: host().passwd + "+::::::\n",
            group: host().group + "+:::\n",
            ..host()
        };
        let bare = Files {
            shadow: None,
            gshadow: None,
            ..host()
        };
        for before in [host(), nis, bare] {
            let missing = missing(&before, &wanted);
            assert_eq!(missing, wanted);
            let after = added(&before, &missing).unwrap();
            assert!(super::missing(&after, &wanted).is_empty());
            assert!(after.passwd.contains(
                "dtn-vdn:x:996:996:The domain's controller:/var/lib/dtn/vdn:/usr/sbin/nologin\n"
            ));
            assert!(after.group.contains("dtn:x:997:dtn-vdn\n"), "{after:?}");
            assert_eq!(removed(&after, &missing), before);
        }
    }

    #[test]
    fn an_account_that_was_there_is_neither_made_nor_taken() {
        let mut before = host();
        before.group.push_str("dtn:x:500:bob\n");
        let wanted = parse(SYSUSERS).unwrap();
        let missing = missing(&before, &wanted);
        assert_eq!(missing.len(), 2);
        let after = added(&before, &missing).unwrap();
        assert!(after.group.contains("dtn:x:500:bob,dtn-vdn\n"));
        assert_eq!(removed(&after, &missing), before);
    }

    #[test]
    fn changes_of_others_stay_when_ours_are_taken_back() {
        let wanted = parse(SYSUSERS).unwrap();
        let mut after = added(&host(), &wanted).unwrap();
        after
            .passwd
            .push_str("carol:x:1000:1000::/home/carol:/bin/sh\n");
        let back = removed(&after, &wanted);
        assert!(
            back.passwd
                .ends_with("carol:x:1000:1000::/home/carol:/bin/sh\n")
        );
        assert!(!back.passwd.contains("dtn"));
    }

    #[test]
    fn kinds_that_are_not_known_are_refused() {
        for line in ["r - 500-600", "u x 12:34", "u", "g -"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
