//! The kubelet's gRPC contracts as code. It is generated from the `.proto` files beside it and
//! checked in, so that a build needs no generator; a test generates it anew and compares
//! (`DTN_UPDATE=1 cargo test -p dtnd --test contracts` writes it).

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident, $file:literal) => {
        $(#[$doc])*
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::allow_attributes_without_reason,
            reason = "generated; the .proto file has the words"
        )]
        pub mod $name {
            include!(concat!("contracts/", $file));
        }
    };
}

generated!(
    /// How a plugin introduces itself.
    registration,
    "pluginregistration.rs"
);
generated!(
    /// Prepare and unprepare.
    dra,
    "dra.rs"
);
generated!(
    /// How the devices are.
    health,
    "health.rs"
);
