//! Takes the outer identity of records; gives the columns that hold it, and the way back. Tunnels stand in one text,
//! outermost first, as `gre,vxlan:5001`, which an analyst can read and search.

use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, Int32Array, StringArray};
use flow::{Outer, Record, Tunnel, Vlans};

use super::schema::{SchemaError, int, no_record};

/// MPLS labels; NULL where there is none.
pub(super) fn labels(records: &[Record]) -> ArrayRef {
    let labels = records.iter().map(|record| record.outer.mpls_label());
    // A label has 20 bits.
    Arc::new(
        labels.map(|label| label.and_then(|it| i32::try_from(it).ok())).collect::<Int32Array>(),
    )
}

/// Tunnels; NULL where there is none.
pub(super) fn tunnels(records: &[Record]) -> ArrayRef {
    let text = |record: &Record| {
        let each: Vec<String> = record.outer.tunnels().map(|tunnel| tunnel.to_string()).collect();
        (!each.is_empty()).then(|| each.join(","))
    };
    Arc::new(records.iter().map(text).collect::<StringArray>())
}

/// The identity that the columns of a row say.
pub(super) fn outer(
    vlans: &[ArrayRef; 2],
    labels: &ArrayRef,
    tunnels: &ArrayRef,
    row: usize,
) -> Result<Outer, SchemaError> {
    let [outer, inner] = vlans;
    let vlans = Vlans([int(outer, row, "vlan_outer")?, int(inner, row, "vlan_inner")?]);
    let label = labels.is_valid(row).then(|| int(labels, row, "mpls_label")).transpose()?;
    let text = if tunnels.is_valid(row) { tunnels.as_string::<i32>().value(row) } else { "" };
    let each: Vec<Tunnel> = text
        .split(',')
        .filter(|one| !one.is_empty())
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_no_tunnel| no_record("tunnels", text))?;
    Outer::new(vlans, label, each).ok_or_else(|| no_record("tunnels", text))
}
