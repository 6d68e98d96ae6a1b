//! One call, end to end.

use brood_hooks::admission::Decision;
use brood_hooks::{Admission, Ceiling, Decide};
use brood_plugin_host::Decider;

use crate::component::Component;
use crate::place::{NOW, admit, ask, bind, decision, host};

#[test]
fn component_narrows_a_fork_and_its_record_replays_bit_for_bit() {
    let host = host();
    let bytes = Component::new("admission-policy")
        .answer("review", admit(5))
        .build();
    let bound = bind(&host, &bytes, |_| ());
    let Decision::Admitted(admitted) = decision(&bound) else {
        panic!("not admitted")
    };
    assert_eq!(admitted.count, 5);

    let records = host.records().all(NOW);
    let [record] = records.as_slice() else {
        panic!("{records:?}")
    };
    assert_eq!(record.component, bound.plugin.current().digest());
    assert!(record.fuel_used > 0);
    assert_eq!(host.replay(record, &bound.plugin.current()), Ok(()));
    let mut tampered = (**record).clone();
    tampered.fuel_used += 1;
    assert!(host.replay(&tampered, &bound.plugin.current()).is_err());
}

#[test]
fn decider_of_the_engine_and_a_component_stand_behind_one_trait() {
    let host = host();
    let bytes = Component::new("admission-policy")
        .answer("review", admit(3))
        .build();
    let bound = bind(&host, &bytes, |_| ());
    let deciders: [Box<dyn Decide<Admission>>; 2] = [
        Box::new(Ceiling {
            per_request: 3,
            live_per_tenant: 100,
        }),
        Box::new(Decider(bound.binding)),
    ];
    for decider in deciders {
        let verdicts = decider.decide(NOW, ask().ask()).expect("answers");
        let [brood_hooks::admission::Verdict::Admit(grant)] = verdicts.as_slice() else {
            panic!("{verdicts:?}")
        };
        assert_eq!(grant.count, 3);
    }
}
