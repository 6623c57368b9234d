//! What `dtnctl` says of itself: golden texts of every help page, and the codes of wrong lines.

#[expect(dead_code, reason = "help needs no daemon")]
mod double;

use double::run;

#[test]
fn every_help_page_is_as_it_was_read_last() {
    let pages: &[&[&str]] = &[
        &[],
        &["status"],
        &["doctor"],
        &["nics"],
        &["slice"],
        &["slice", "reserve"],
        &["slice", "extend"],
        &["lease"],
        &["gateway"],
        &["access"],
        &["access", "apply"],
        &["access", "set"],
        &["access", "explain"],
        &["domain"],
        &["domain", "invite"],
        &["domain", "accept"],
        &["domain", "rotate-key"],
        &["domain", "revoke"],
        &["host"],
        &["host", "revoke"],
        &["support-bundle"],
        &["cluster"],
        &["cluster", "invite"],
        &["cluster", "revoke"],
        &["deploy"],
        &["undeploy"],
        &["pods"],
        &["config"],
        &["config", "check"],
        &["config", "diff"],
        &["config", "try"],
    ];
    for page in pages {
        let words: Vec<&str> = page.iter().chain(&["--help"]).copied().collect();
        let ran = run(&words, "");
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{page:?}");
        let name = if page.is_empty() {
            "dtnctl".into()
        } else {
            page.join("-")
        };
        insta::assert_snapshot!(name, ran.out);
    }
}

#[test]
fn a_wrong_line_is_2_and_says_what_is_right() {
    for (words, says) in [
        (&["slice", "reserve"][..], "<NAME>"),
        (&["slice", "reserve", "Big"], "a-z"),
        (&["slice", "reserve", "a", "--rate", "9"], "Gbit"),
        (
            &["deploy", "t", "--name", "a", "--nic", "vlan"],
            "dedicated or shared",
        ),
        (
            &[
                "deploy", "t", "--name", "a", "--nic", "shared", "--set", "x",
            ],
            "KEY=VALUE",
        ),
        (
            &["access", "set", "g", "1", "permit", "inbound"],
            "allow deny",
        ),
        (&["access", "remove", "g"], "<NUMBER>"),
        (
            &["slice", "reserve", "a", "--gateway", "g", "--to", "b"],
            "cannot be used with",
        ),
        (&["--site", "a", "--root", "/b", "nics"], "--site"),
        (&["fly"], "fly"),
    ] {
        let ran = run(words, "");
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{words:?}: {}",
            ran.err
        );
        assert!(ran.err.contains(says), "{words:?}: {}", ran.err);
    }
}
