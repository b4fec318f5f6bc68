"""Times are exact, whatever the file stores, and steps are whole frames."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from map2map.errors import FieldError, RecipeError
from map2map.times import decode, duration, frames_in, select, starts, step_of_axis

FIRST, LAST = datetime(1979, 1, 1, tzinfo=UTC), datetime(2021, 12, 31, 18, tzinfo=UTC)


def reference():
    """Every six hours of 43 years, counted by the standard library."""
    found = [FIRST]
    while found[-1] < LAST:
        found.append(found[-1] + timedelta(hours=6))
    return found


EVERY = reference()
AXIS = np.array([time.replace(tzinfo=None) for time in EVERY], "datetime64[us]")
HOURS = np.array([(t - datetime(1900, 1, 1, tzinfo=UTC)) // timedelta(hours=1) for t in EVERY])


@pytest.mark.parametrize(
    ("values", "units"),
    [
        (AXIS.astype("datetime64[ns]"), None),
        (AXIS.astype("datetime64[h]"), None),
        (HOURS.astype(np.int32), "hours since 1900-01-01"),
        (HOURS.astype(np.int64), "Hours since 1900-1-1 0:0:0.0"),
        (HOURS.astype(np.float64), "hours since 1900-01-01 00:00:00"),
        # whole numbers that single precision tells from their halves
        (HOURS.astype(np.float32), "h since 1900-01-01T00:00:00Z"),
        (HOURS * 60, "minutes since 1900-01-01 00:00 UTC"),
        (HOURS / 24, "days since 1900-01-01"),
        (HOURS * 3600.0, "seconds since 1900-01-01 00:00:00 +00:00"),
        (HOURS - 12, "hours since 1900-01-01 12:00"),
    ],
)
def test_43_years_of_six_hourly_times_are_exact(values, units):
    found = decode(values, units)
    assert found.dtype == np.dtype("datetime64[us]")
    assert len(found) == 62_824
    assert (found == AXIS).all()


@pytest.mark.parametrize(("step", "frames"), [("6h", 1), ("24h", 4), ("72h", 12), ("3d", 12)])
def test_steps_are_whole_frames_from_every_time_of_43_years(step, frames):
    axis = decode(HOURS, "hours since 1900-01-01")
    assert step_of_axis(axis) == np.timedelta64(6, "h")
    assert frames_in(step, axis) == frames
    first, later = starts(axis, step)
    assert (later - first == frames).all()
    assert len(first) == len(EVERY) - frames
    lag = timedelta(hours=6 * frames)
    assert all(EVERY[j] - EVERY[i] == lag for i, j in zip(first, later, strict=True))


def test_thirds_of_an_hour_in_days_are_told_to_the_second():
    minutes = np.arange(0, 3_000_000, 20)
    found = decode(minutes / 1440, "days since 1979-01-01")
    assert (found == np.datetime64("1979-01-01", "us") + minutes.astype("timedelta64[m]")).all()


def test_seconds_in_single_precision_are_refused_because_they_are_128_s_apart():
    seconds = AXIS.astype("datetime64[s]").astype(np.int64).astype(np.float32)
    with pytest.raises(FieldError, match=r"as float32, .* 128 s apart.*store them as integers"):
        decode(seconds, "seconds since 1970-01-01")


def test_days_in_single_precision_are_refused_if_they_are_not_whole():
    days = (HOURS / 24).astype(np.float32)
    assert (decode(days[::4], "days since 1900-01-01") == AXIS[::4]).all()
    with pytest.raises(FieldError, match=r"as float32, .* 337.5 s apart"):
        decode(days, "days since 1900-01-01")


@pytest.mark.parametrize(
    ("values", "units", "calendar", "message"),
    [
        ([0], None, "standard", "without units"),
        (["2019"], "hours since 1900-01-01", "standard", "of type <U4"),
        ([0], "months since 1900-01-01", "standard", "no unit of time 'months' of one length"),
        ([0], "hours after 1900", "standard", "cannot be read"),
        ([0], "hours since 1900-01-01 +02:00", "standard", "cannot be read"),
        ([0], "hours since 1900-02-30", "standard", "name no date"),
        ([0], "days since 1900-01-01", "noleap", "calendar 'noleap'; those that can be read"),
        ([0], "days since 0001-01-01", "standard", "calendar reform of 1582"),
        ([0.5, np.nan], "days since 1900-01-01", "standard", "1 times are NaN"),
        ([1.00001], "hours since 1900-01-01", "standard", "0.036 s from whole seconds"),
        (np.array([1], "datetime64[ns]"), None, "standard", "parts of a microsecond"),
    ],
)
def test_times_that_cannot_be_told_exactly_are_refused(values, units, calendar, message):
    with pytest.raises((FieldError, RecipeError), match=message):
        decode(values, units, calendar)


def test_an_old_reference_date_has_a_calendar_without_gaps():
    found = decode([737791], "days since 0001-01-01", "proleptic_gregorian")
    assert found[0] == np.datetime64(datetime.fromordinal(737792))


@pytest.mark.parametrize(
    ("text", "hours"),
    [("6h", 6), ("24 hours", 24), ("1d", 24), ("90min", 1.5), ("3 days", 72), ("7200 s", 2),
     (timedelta(hours=5), 5), (np.timedelta64(2, "D"), 48)],
)  # fmt: skip
def test_durations_are_numbers_and_units(text, hours):
    assert duration(text) == np.timedelta64(round(hours * 3600), "s")


@pytest.mark.parametrize("text", ["h", "6", "six hours", "1.5h", "-6h", "0h", "2 months", "6h6"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(RecipeError, match=r"no duration|longer than zero|of one length"):
        duration(text)


def test_a_step_between_frames_is_refused_with_what_there_is():
    axis = AXIS[:20]
    with pytest.raises(
        RecipeError, match=r"step of 9h was asked for.*every 6:00:00; use a multiple.*such as 6:00"
    ):
        frames_in("9h", axis)
    with pytest.raises(RecipeError, match="step of 1h"):
        starts(axis, "1h")
    with pytest.raises(RecipeError, match=r"no frame has another one 120h later: there are 20"):
        starts(axis, "120h")


def test_pairs_do_not_step_over_gaps():
    years = select(AXIS, ["2018", 2020, "2021"])
    axis = AXIS[years]
    first, later = starts(axis, "24h")
    assert (axis[later] - axis[first] == np.timedelta64(24, "h")).all()
    # the last four of 2018 and of 2021 have none
    assert len(first) == len(axis) - 8
    assert not np.isin(np.flatnonzero(axis >= np.datetime64("2018-12-31"))[:4], first).any()


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (AXIS[:1], "needs two or more"),
        (AXIS[[0, 2, 1]], "1979-01-01T06:00:00.000000 follows 1979-01-01T12"),
        (AXIS[[0, 1, 1]], "must ascend"),
        (AXIS[[0, 2, 5]], r"12:00:00 apart where.* it is 18:00:00, no multiple"),
    ],
)
def test_axes_that_are_not_even_are_refused(times, message):
    with pytest.raises(FieldError, match=message):
        step_of_axis(times)


def within(first, last):
    return [i for i, t in enumerate(EVERY) if first <= t.strftime("%Y-%m-%dT%H:%M") < last]


@pytest.mark.parametrize(
    ("which", "first", "last"),
    [
        ("2019-01-01:2020-03-25", "2019-01-01", "2020-03-26"),
        ("2019-01-01 : 2020-03-25", "2019-01-01", "2020-03-26"),
        ("slice('2019-01-01', '2020-03-25')", "2019-01-01", "2020-03-26"),
        ("slice('2019-01-01','2020-03-25')", "2019-01-01", "2020-03-26"),
        ("slice(None, '1980')", "1979", "1981"),
        ("1979:2017", "1979", "2018"),
        ("2019", "2019", "2020"),
        (2019, "2019", "2020"),
        ("2020-02", "2020-02", "2020-03"),
        ("2020-02:2020-04-05", "2020-02", "2020-04-06"),
        ("2021-06:", "2021-06", "2022"),
        (":1979-03", "1979", "1979-04"),
        ("2020-02-28T06:00:2020-02-28T12:00", "2020-02-28T06:00", "2020-02-28T12:01"),
        ("2020-02-28T06:2020-03", "2020-02-28T06", "2020-04"),
        ("2020-02-28 18:00", "2020-02-28T18:00", "2020-02-28T18:01"),
    ],
)
def test_slices_hold_all_of_their_first_and_last_date(which, first, last):
    assert select(AXIS, which).tolist() == within(first, last)


def test_several_slices_are_taken_once_and_in_order():
    expected = within("2018", "2019") + within("2020", "2022")
    assert select(AXIS, [2020, "2018", "2020-06:2021"]).tolist() == expected
    back = select(AXIS[::-1], "1979-01-01")
    assert (AXIS[::-1][back] < np.datetime64("1979-01-02")).all()
    assert len(back) == 4


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("2022", r"no frames in 2022: the data have times from 1979-01-01T00.* to 2021-12-31T18"),
        ([2019, "1950:1960"], "no frames in 1950:1960"),
        ("2020:2019", "ends before it starts"),
        ("2019-13", "'2019-13' is no date"),
        ("last year", "'last year' is no date"),
        ("2019:2020:2021", "'2019:2020' is no date"),
        (":", "no range of dates"),
        ("", "no range of dates"),
        ([], "no times were asked for"),
    ],
)
def test_slices_that_are_malformed_or_empty_are_refused(which, message):
    with pytest.raises(RecipeError, match=message):
        select(AXIS, which)
