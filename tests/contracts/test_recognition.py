"""The records of recognition are held to what every record is held to; its services follow no pattern but their own."""

from collections.abc import Callable

import pytest
from google.protobuf.descriptor import Descriptor

from hutong.api.recognition.v1 import case_pb2, stage_result_pb2
from tests.contracts import test_records as rules

RECORDS: list[Descriptor] = [
    case_pb2.Case.DESCRIPTOR,
    case_pb2.StageEvent.DESCRIPTOR,
    stage_result_pb2.StageResult.DESCRIPTOR,
    stage_result_pb2.Task.DESCRIPTOR,
]
RULES: list[Callable[[Descriptor], None]] = [
    rules.test_envelope_comes_first_and_carries_no_options,
    rules.test_record_option_is_complete,
    rules.test_fact_time_is_a_moment_of_the_record_itself,
    rules.test_every_field_states_share_class_and_grade,
    rules.test_only_single_values_are_indexed_and_keys_and_subjects_always_are,
    rules.test_what_is_withheld_is_restricted_and_cannot_be_filtered_on,
    rules.test_every_scheme_is_registered,
    rules.test_truth_values_can_be_absent,
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.name)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__.removeprefix("test_"))
def test_the_records_are_as_all_records_are(record: Descriptor, rule: Callable[[Descriptor], None]) -> None:
    rule(record)
