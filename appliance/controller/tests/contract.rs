//! The OpenAPI document that is checked in is the one that the routes make.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[test]
fn the_document_is_current() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let made = format!("{}\n", vdnd::routes::document().to_pretty_json().unwrap());
    if std::env::var_os("DTN_UPDATE").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept == made,
        "openapi.json is old: run this test with DTN_UPDATE=1 and read the diff"
    );
    // and it is a whole one: every verb of the table in routes/mod.rs is there
    let json: serde_json::Value = serde_json::from_str(&made).unwrap();
    let verbs: usize = json["paths"]
        .as_object()
        .unwrap()
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum();
    assert_eq!(verbs, 67);
}
