//! Single series of events that a model does not tell from others: they only save time.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_granted_late_is_given_up() {
    let world = World::new(2, WhenUnreachable::Wait, HOUR);
    let token = world.sign_in();
    let slow = world.request(0, token);
    world.settle().await;
    world.apply(Event::Look(0)).await;
    world.apply(Event::Arrive(1)).await;
    world.apply(Event::Wait(1001)).await;
    let fast = world.request(1, token);
    world.settle().await;
    world.apply(Event::Look(2)).await;
    world.apply(Event::Reply(1)).await;
    assert!(world.net().calls.is_empty());
    world.run().await;
    assert_eq!(world.senders(), [fast]);
    assert_eq!(world.net().tasks[slow].outcome, Some(Err(AuthErrorKind::Unavailable)));
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_is_lost_is_given_up_at_once() {
    let world = World::new(2, WhenUnreachable::Wait, HOUR);
    let token = world.sign_in();
    let slow = world.request(0, token);
    world.settle().await;
    world.apply(Event::Look(0)).await;
    world.apply(Event::LoseReply(1)).await;
    assert_eq!(world.net().tasks[slow].outcome, Some(Err(AuthErrorKind::Unavailable)));
    world.run().await;
    let fast = world.request(1, token);
    world.settle().await;
    world.run().await;
    assert_eq!(world.senders(), [fast]);
    assert!(world.net().start.elapsed().is_zero());
}

#[tokio::test(start_paused = true)]
async fn a_claim_whose_reply_is_lost_is_given_up_while_another_one_is_remembered() {
    let world = World::new(2, WhenUnreachable::Wait, HOUR);
    let token = world.sign_in();
    for replica in [0, 1] {
        world.request(replica, token);
        world.settle().await;
    }
    // Both find the token free. The first one's claim is granted, and the other one's denied.
    world.apply(Event::Look(0)).await;
    world.apply(Event::Look(1)).await;
    world.apply(Event::Arrive(2)).await;
    world.apply(Event::Operate(3)).await;
    // Granted too late: it is released.
    world.apply(Event::Wait(1001)).await;
    world.apply(Event::Reply(2)).await;
    world.apply(Event::Operate(world.latest("finish", 0))).await;
    // So the token is free again: the claim that is remembered has gone, and another one may have arrived.
    world.apply(Event::Look(world.latest("look", 1))).await;
    world.apply(Event::LoseReply(world.latest("claim", 1))).await;
    world.run().await;
    let next = world.request(0, token);
    world.settle().await;
    world.run().await;
    assert_eq!(world.senders(), [next]);
}

impl World {
    /// Lets everything happen that can happen at once.
    async fn run(&self) {
        while let Some(event) = self.next_due() {
            self.apply(event).await;
        }
    }

    /// Returns the operation that a replica has sent last.
    fn latest(&self, kind: &str, replica: usize) -> usize {
        let net = self.net();
        let mut operations = net.operations.iter().rev();
        *operations.find(|(_, operation)| operation.kind == kind && operation.replica == replica).unwrap().0
    }

    /// Returns the tasks that have sent a token.
    fn senders(&self) -> Vec<usize> {
        self.net().calls.iter().map(|call| call.task).collect()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
