//! Takes what is known of each batch; says where the chain of a sensor breaks first. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

/// What the header of a kept batch says, once its bytes were found whole and signed by its sensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) blake3: [u8; 32],
    pub(super) previous_blake3: [u8; 32],
    pub(super) records: u64,
    /// Totals of its boot epoch, itself included.
    pub(super) records_sealed: u64,
    pub(super) records_evicted: u64,
}

/// A batch as the database has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) records: u64,
    /// Whether there is evidence of the day on which it was received.
    pub(super) day_is_kept: bool,
}

/// Place of a batch among those of a sensor: boot epoch and sequence.
pub(super) type Place = (u64, u64);

/// Where and why a chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Break {
    /// Boot epoch and sequence; `None` where bytes do not say whose they are.
    pub batch: Option<(u64, u64)>,
    /// What is wrong, for people.
    pub reason: String,
}

/// What was found out about a sensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Batches that are whole, signed, and in their places.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Records that are missing because the sensor's spool gave them up, as it says itself.
    pub records_evicted: u64,
    /// Batches that were stored on days of which no evidence is kept any more.
    pub batches_not_kept: u64,
    /// The first break.
    pub first_break: Option<Break>,
    /// How many there are.
    pub breaks: u64,
}

impl Findings {
    pub(super) fn note(&mut self, batch: Option<Place>, reason: String) {
        self.breaks += 1;
        let is_first = self.first_break.as_ref().is_none_or(|first| batch < first.batch);
        if is_first {
            self.first_break = Some(Break { batch, reason });
        }
    }
}

/// Walks the chain of one sensor.
pub(super) fn walk(
    links: &BTreeMap<Place, Link>,
    stored: &BTreeMap<Place, Stored>,
    findings: &mut Findings,
) {
    for (place, Stored { day_is_kept, .. }) in stored {
        if links.contains_key(place) {
            continue;
        }
        if *day_is_kept {
            findings.note(Some(*place), "it was stored, and its evidence is missing".to_owned());
        } else {
            findings.batches_not_kept += 1;
        }
    }
    // Each boot epoch counts from 0 what was given up in it, of whatever epoch that was.
    let mut told = BTreeMap::<u64, u64>::new();
    for ((boot_epoch, _), link) in links {
        let told = told.entry(*boot_epoch).or_default();
        *told = link.records_evicted.max(*told);
    }
    let declared: u64 = told.values().sum();
    let mut missing = 0;
    let mut before: Option<(Place, &Link)> = None;
    for (place, link) in links {
        findings.batches += 1;
        findings.records += link.records;
        let earlier = before.filter(|((boot_epoch, _), _)| *boot_epoch == place.0);
        before = Some((*place, link));
        let (from, sealed_before) =
            earlier.map_or((0, 0), |((_, sequence), link)| (sequence, link.records_sealed));
        let starts_after = place.1 - from == 1;
        let expected = match earlier {
            Some((_, earlier)) if starts_after => Some(earlier.blake3),
            None if starts_after => Some([0; 32]),
            _ => None,
        };
        if let Some(expected) = expected {
            if link.previous_blake3 != expected {
                let reason = match earlier {
                    Some(_) => {
                        "it does not follow from the batch before it: one of them was exchanged"
                    }
                    None => {
                        "it is the first of its boot epoch and says that another one was before it"
                    }
                };
                findings.note(Some(*place), reason.to_owned());
            }
            continue;
        }
        // A gap. What was stored in it and is not kept has been told above; the rest was never received.
        let in_gap: u64 =
            stored.range((place.0, from + 1)..*place).map(|(_, stored)| stored.records).sum();
        let sealed = link.records_sealed.saturating_sub(link.records);
        let absent = sealed.saturating_sub(sealed_before).saturating_sub(in_gap);
        missing += absent;
        if missing > declared {
            let (first, last) = (from + 1, place.1 - 1);
            findings.note(
                Some((place.0, first)),
                format!(
                    "batches {first} to {last} are missing with {absent} records, and the sensor has declared \
                     {declared} as evicted"
                ),
            );
        }
    }
    findings.records_evicted = missing.min(declared);
}
