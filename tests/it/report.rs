//! Lists of a run's recipients: a page is bounded, and the next one goes on after it.

use nightmail::run::report::{self, ROWS_SHOWN_MAX};

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
    let page = |state: Option<&str>, after: Option<&str>| report::rows(&snapshot, 7, state, false, after).unwrap();
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
