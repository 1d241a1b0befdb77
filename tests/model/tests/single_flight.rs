//! The scenarios, in all of their interleavings or, where those are too many, in many.

use model::scenarios;
use shuttle::{
    Config, Runner,
    scheduler::{DfsScheduler, PctScheduler},
};

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let runs = Runner::new(DfsScheduler::new(Some(MAX_RUNS), false), Config::new()).run(scenarios::$name);
            if runs == MAX_RUNS {
                let scheduler = PctScheduler::new_from_seed(1, DEPTH, MAX_RUNS);
                Runner::new(scheduler, Config::new()).run(scenarios::$name);
            }
            println!("{runs} runs in depth");
        }
    )*};
}

scenarios! {
    requests_share_one_renewal
    a_chain_is_renewed_at_its_end
    a_renewal_that_dies_is_taken_over
    a_late_answer_is_kept
    a_logout_meets_a_renewal
    a_logout_with_a_spent_token_meets_a_renewal
    a_logout_meets_a_rescue
    a_logout_meets_a_successor_that_cannot_be_used
    responses_let_go_while_others_ask
    sessions_give_way_and_tokens_stay
    two_logouts_meet_a_renewal
    no_more_are_renewed_than_there_is_room_for
}

const MAX_RUNS: usize = 10_000;
/// How many switches of threads, at the right places, a mistake may need.
const DEPTH: usize = 3;
