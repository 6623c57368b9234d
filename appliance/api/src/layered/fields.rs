//! What a field of the configuration is: one table for the readers, the schema, and the comparison
//! of two configurations. A field that is in no table is refused, and cannot be forgotten in one of
//! the three.

/// What may be written for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text in quotes, of this form (a regular expression that ECMA-262 and Rust read alike).
    Text(&'static str),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number from the first to the second.
    Integer(i64, i64),
    /// `true` or `false`.
    Flag,
    /// A list of texts of this form.
    List(&'static str),
}

/// Any text.
pub const TEXT: Kind = Kind::Text("");
/// A name of ours: a DNS label.
pub const NAME: Kind = Kind::Text("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$");
/// A rate with its unit.
pub const RATE: Kind = Kind::Text("^\\s*[0-9]+(\\.[0-9]+)?\\s*([kKmMgGtT]?[bB][iI][tT])(/s)?\\s*$");
/// A length of time with its unit.
pub const SPAN: Kind = Kind::Text("^\\s*([0-9]+(\\.[0-9]+)?\\s*(d|h|m|s|ms)\\s*)+$");
/// An absolute path.
pub const PATH: Kind = Kind::Text("^/");
/// An address with a port.
pub const ADDRESS: Kind = Kind::Text("^([0-9.]+|\\[[0-9a-fA-F:.%]+\\]):[0-9]{1,5}$");
/// Form of an address with or without a prefix length.
pub const NET: &str = "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$";
/// A port of the fabric.
pub const PLACE: Kind = Kind::Text("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[!-.0-~]+$");

/// When a change of a field is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Once the configuration is read again.
    Live,
    /// Only once the daemon was started again, for this reason.
    Restart(&'static str),
}

/// A field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its key.
    pub key: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What it is, for people.
    pub what: &'static str,
    /// It has to be there.
    pub needed: bool,
    /// What it is when it is left out, as TOML.
    pub default: Option<&'static str>,
    /// When a change of it is in force.
    pub change: Change,
}

/// A field that may be left out, and whose change is in force at once.
pub const fn field(key: &'static str, kind: Kind, what: &'static str) -> Field {
    Field {
        key,
        kind,
        what,
        needed: false,
        default: None,
        change: Change::Live,
    }
}
impl Field {
    /// The same, which has to be there.
    #[must_use]
    pub const fn needed(mut self) -> Self {
        self.needed = true;
        self
    }
    /// The same with its default, as TOML.
    #[must_use]
    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
    /// The same, whose change needs a restart.
    #[must_use]
    pub const fn at_start(mut self, why: &'static str) -> Self {
        self.change = Change::Restart(why);
        self
    }
}

/// A table of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its name; empty for the file itself.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// The keys that tell one from another, where there may be several (`[[name]]`).
    pub told_by: &'static [&'static str],
    /// Its fields.
    pub fields: &'static [Field],
}
impl Table {
    /// Whether there may be several of it.
    pub const fn many(&self) -> bool {
        !self.told_by.is_empty()
    }
    /// Its keys.
    pub fn keys(&self) -> Vec<&'static str> {
        self.fields.iter().map(|field| field.key).collect()
    }
}

/// The keys of a table among these.
pub fn keys(tables: &[Table], name: &str) -> Vec<&'static str> {
    let found = tables.iter().find(|table| table.name == name);
    found.map(Table::keys).unwrap_or_default()
}

/// The version, which both daemons read.
pub const FILE: Table = Table {
    name: "",
    what: "The configuration of a DTN and its domain",
    told_by: &[],
    fields: &[field(
        "version",
        Kind::Integer(1, 1),
        "Version of this format; always first",
    )
    .needed()],
};
/// What is logged, which both daemons read.
pub const LOG: Table = Table {
    name: "log",
    what: "What both daemons log",
    told_by: &[],
    fields: &[field(
        "level",
        TEXT,
        "error, warn, info, debug or trace, or a filter as \"info,dtnd::uplink=debug\"",
    )
    .or("\"info\"")],
};
