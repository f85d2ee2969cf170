//! What is decided about a run: by operators, who stop, resume, release and abandon it, and by its guard and its brake.
//!
//! `decide` is the decision, one small commit that counts at once: from then on no message of the run is received, no mail
//! of it is permitted and its fan-out commits nothing. `background` does the rest in slices, over restarts too: `recall`
//! takes messages out of the queues, `send` makes them. `guard` lets a run go once its users are fetched, or has it wait;
//! `gate` has the statements made and checked before the first is mailed, and `remake` forgets them; `brake` stops a run of which too many recipients fail.
//! `let_go` is the run that the next one is compared with, `refetch` is what is special while users are fetched again. `state` is
//! the state of a run in one word, and what of it may begin.

mod background;
mod brake;
mod decide;
mod gate;
mod guard;
mod let_go;
mod recall;
mod refetch;
mod remake;
mod row;
mod send;
mod state;

pub use background::work_off;
pub(super) use brake::{all_ended, failed, set as set_brake};
pub use decide::{Decision, decide};
pub(super) use gate::{all_rendered, guard_of, judged, set as set_gate};
pub(super) use guard::set as set_guard;
pub use guard::{fetched, is_guarded, search as search_earlier};
pub(super) use refetch::begin as begin_refetch;
pub(super) use state::{
    Allowed, GateStage, Stage, decided, hold, is_going_on, may_fetch, may_mail, remedy, stage, state,
};
pub use state::{RunState, fetch_held, held};

/// The topic that commits signal after a decision about a run.
const TOPIC: u64 = u64::MAX - 1;

/// Between two steps others have the writer for themselves for this long.
const REST: std::time::Duration = std::time::Duration::from_millis(1);
