//! The checked-in code of the kubelet's contracts is what their `.proto` files say.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;

#[test]
fn generated_code_is_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster/contracts");
    for (name, package) in [
        ("pluginregistration", "pluginregistration"),
        ("dra", "k8s.io.kubelet.pkg.apis.dra.v1"),
        ("health", "v1"),
    ] {
        let described = protox::compile([folder.join(format!("{name}.proto"))], [&folder]).unwrap();
        let out = tempfile::tempdir().unwrap();
        tonic_prost_build::configure()
            .out_dir(out.path())
            .compile_fds(described)
            .unwrap();
        let made = std::fs::read_to_string(out.path().join(format!("{package}.rs"))).unwrap();
        let file = folder.join(format!("{name}.rs"));
        if std::env::var_os("DTN_UPDATE").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        assert!(
            std::fs::read_to_string(&file).unwrap() == made,
            "{}: not what the .proto file says: DTN_UPDATE=1 cargo test -p dtnd --test contracts",
            file.display()
        );
    }
}
