//! Takes the books at the end of a command; gives one sentence for each way in which records were
//! lost. With none, and nothing that still fails, the command has succeeded, whatever failed for a
//! while in between.

use crate::summary::Summary;

/// What was lost, for people.
pub(super) fn losses(summary: &Summary) -> Vec<String> {
    let told = [
        (summary.records_lost, "records were lost because the spool could not be written"),
        (
            summary.records_evicted,
            "records were given up before the backend had them: the spool was full, or an earlier \
             identity had sealed them",
        ),
        (summary.records_rejected, "records were refused by the backend for good"),
        (summary.records_missed, "records did not get to an output that had failed"),
        (summary.records_unsent, "records could not be sent to the collector"),
        (summary.batches_quarantined, "damaged spool files were moved to quarantine"),
    ];
    told.into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_and_recovered_is_no_loss_and_each_loss_is_told() {
        let recovered = Summary { output_failures: 3, records_waiting: 7, ..Summary::default() };
        assert_eq!(losses(&recovered), Vec::<String>::new());
        let lost = Summary {
            records_lost: 1,
            records_evicted: 2,
            records_rejected: 3,
            records_missed: 4,
            records_unsent: 5,
            batches_quarantined: 6,
            ..recovered
        };
        let numbers: Vec<String> = losses(&lost)
            .iter()
            .map(|told| told.split(' ').next().unwrap_or("").to_owned())
            .collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "6"]);
    }
}
