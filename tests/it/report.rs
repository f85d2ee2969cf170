//! Lists of a run's recipients: a page is bounded, and the next one goes on after it.

use nightmail::base::outcome::DeliveryProof;
use nightmail::run::report::{self, Filter, ROWS_SHOWN_MAX};
use nightmail::store::record::{RecipientRecord, RecipientState};

use crate::format::{recipients, run};
use crate::support::World;

/// A world with run 7 and that many open recipients, and after each of them one whose message is dead.
async fn with_recipients(count: usize) -> World {
    let world = World::new();
    let open = recipients().remove(0);
    let dead = recipients().into_iter().find(|row| row.state.name() == "dead").unwrap();
    world
        .step(move |tx| {
            tx.runs()?.insert(&7, &run())?;
            for n in 0..count as u128 {
                tx.recipients()?.insert(&(7, (2 * n).to_be_bytes()), &open)?;
                tx.recipients()?.insert(&(7, (2 * n + 1).to_be_bytes()), &dead)?;
            }
            // The rows of other runs are not listed.
            tx.recipients()?.insert(&(6, [0xff; 16]), &open)?;
            Ok(tx.recipients()?.insert(&(8, [0; 16]), &open)?)
        })
        .await
        .unwrap();
    world
}

#[tokio::test]
async fn a_list_has_at_most_1000_rows_and_goes_on_after_its_last_one() {
    let world = with_recipients(ROWS_SHOWN_MAX + 1).await;
    let snapshot = world.snapshot();
    let page = |state: Option<&str>, after: Option<&str>| {
        let filter = Filter { state: state.map(str::to_owned), ..Filter::default() };
        report::rows(&snapshot, 7, &filter, after).unwrap()
    };
    let first = page(Some("open"), None);
    assert_eq!((first.len(), ROWS_SHOWN_MAX), (1000, 1000));
    let second = page(Some("open"), Some(&first[999].key));
    assert_eq!(second.len(), 1);
    assert_eq!(page(Some("open"), Some(&second[0].key)), []);
    let all = page(None, None);
    assert_eq!((all.len(), all.last().unwrap().key.as_str()), (1000, "000000000000000000000000000003e7"));
    assert_eq!(page(None, Some(&all[999].key))[0].key, "000000000000000000000000000003e8");
    assert_eq!(page(None, Some(&"f".repeat(32))), [], "nothing comes after the last key");
}

#[tokio::test]
async fn a_list_is_narrowed_by_user_address_and_reason() {
    let world = World::new();
    let row = |n: usize, user: &str, address: &str, reason: &str| RecipientRecord {
        user: user.into(),
        address: address.into(),
        reason: reason.into(),
        ..recipients().remove(n)
    };
    let reply = Some("250 2.0.0 Queued as 4711".into());
    let proof = DeliveryProof { reply, message_id: Some("<1@b>".into()), document_sha256: None };
    let rows = [
        row(0, "u-1", "ada@example.com", ""),
        RecipientRecord { state: RecipientState::Sent(proof), ..row(1, "u-2", "Bob@Example.com", "") },
        row(2, "u-3", "eve@example.com", "http account 404: GET https://bank: answered 404 Not Found"),
        row(3, "u-1", "", ""),
    ];
    world
        .step(move |tx| {
            tx.runs()?.insert(&7, &run())?;
            for (n, row) in (0..).zip(&rows) {
                tx.recipients()?.insert(&(7, [n; 16]), row)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let snapshot = world.snapshot();
    let found = |filter: Filter| {
        let rows = report::rows(&snapshot, 7, &filter, None).unwrap();
        rows.into_iter().map(|row| format!("{} {}", row.user, row.state)).collect::<Vec<_>>()
    };
    let all = Filter::default();
    assert_eq!(found(Filter { user: Some("u-1".into()), ..all.clone() }), ["u-1 open", "u-1 withdrawn"]);
    assert_eq!(found(Filter { address: Some("bob@example.com".into()), ..all.clone() }), ["u-2 sent"]);
    let by_reason = |reason: &str| found(Filter { reason: Some(reason.into()), ..all.clone() });
    assert_eq!(by_reason("not found"), ["u-3 dead"], "the text, in whatever case");
    assert_eq!(by_reason("queued as 4711"), ["u-2 sent"], "the relay's reply");
    assert_eq!(by_reason("PURGED"), ["u-1 withdrawn"]);
    let fingerprint = recipients().remove(2).state;
    let RecipientState::Dead(fingerprint) = fingerprint else { panic!("{fingerprint:?}") };
    assert_eq!(by_reason(&fingerprint.to_string()), ["u-3 dead"]);
    assert_eq!(found(Filter { user: Some("u-1".into()), state: Some("open".into()), ..all }), ["u-1 open"]);
}
