//! Which packets a flow is for: a list of fields that must all hold (§7.2.3).

use crate::{DecodeError, Field, canonical::canonical, read::Reader, write::Writer};

/// The type of a match that is a list of OXM fields (`OFPMT_OXM`).
const OXM: u16 = 1;

/// The fields that a packet must have, all of them; with none it is every packet.
///
/// Made with [`Match::new`] it has one form for one meaning, so that what a switch reports can be
/// compared with what was meant. Decoded matches are made that way.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Match(pub Vec<Field>);

impl Match {
    /// The fields in their one order and form: by number, so that what a field presupposes (the
    /// Ethernet type of an address, §7.2.3.6) stands before it; fields of other classes behind the
    /// numbered ones; no field twice, no mask that asks for all bits or for none.
    pub fn new(fields: impl IntoIterator<Item = Field>) -> Self {
        let mut fields: Vec<Field> = fields.into_iter().filter_map(canonical).collect();
        fields.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.cmp(b)));
        fields.dedup();
        Self(fields)
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        let start = writer.position();
        writer.put(OXM);
        writer.zeros(2);
        for field in &self.0 {
            field.write(writer);
        }
        // the length leaves the padding out, here and nowhere else
        writer.length("match", start + 2, start);
        writer.pad(start);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut head = reader.named("match");
        let (kind, length): (u16, u16) = (head.get()?, head.get()?);
        if kind != OXM {
            return Err(DecodeError::MatchKind { kind });
        }
        let length = usize::from(length);
        if length < 4 {
            let what = "match";
            return Err(DecodeError::Length { what, length });
        }
        let mut padded = reader.part("match", length.next_multiple_of(8))?;
        let mut fields = padded.part("match", length)?;
        fields.skip(4)?;
        fields.all(Field::read).map(Self::new)
    }
}

/// Numbered fields first, whatever other classes there are.
fn order(field: &Field) -> (bool, u16, u8) {
    let (class, number) = field.number();
    (class != 0x8000, class, number)
}
