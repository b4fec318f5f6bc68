!> An exported emulator in Fortran: windows of physical fields in, windows of physical fields out.
!>
!> A field of C channels is an array of shape (n_fast, ..., n_slow, C, batch), on one to three axes.
!> Fortran's first index is contiguous, as Python's and C's last one is, so nothing is copied, and the
!> axes are in reverse: a(k, j, i, c) here is a[c, i, j, k] in the files that the emulator was trained
!> on. Component c of a vector belongs to axis c of those files, which is the c-th index from the back
!> here. All sizes are given in Fortran's order.
module m2m_emulator
  use, intrinsic :: iso_c_binding
  use, intrinsic :: iso_fortran_env, only: error_unit
  implicit none
  private
  public :: emulator

  integer, parameter, public :: inputs = 0, outputs = 1

  type :: emulator
    private
    type(c_ptr) :: handle = c_null_ptr
    integer, public :: ndim = 0
    integer, public :: multiple = 1  !< crops start at multiples of so many cells
    integer, public :: scale = 1     !< output cells per cell
  contains
    procedure :: load
    procedure :: free
    procedure :: fields
    procedure :: name
    procedure :: channels
    procedure :: card
    procedure :: window
    procedure :: output
    procedure :: run
  end type emulator

  interface
    function c_load(path, threads) bind(c, name="m2m_load") result(handle)
      import
      character(kind=c_char), intent(in) :: path(*)
      integer(c_int), value :: threads
      type(c_ptr) :: handle
    end function c_load

    subroutine c_free(handle) bind(c, name="m2m_free")
      import
      type(c_ptr), value :: handle
    end subroutine c_free

    function c_error() bind(c, name="m2m_error") result(text)
      import
      type(c_ptr) :: text
    end function c_error

    function c_card(handle) bind(c, name="m2m_card") result(text)
      import
      type(c_ptr), value :: handle
      type(c_ptr) :: text
    end function c_card

    function c_ndim(handle) bind(c, name="m2m_ndim") result(n)
      import
      type(c_ptr), value :: handle
      integer(c_int) :: n
    end function c_ndim

    function c_multiple(handle) bind(c, name="m2m_multiple") result(n)
      import
      type(c_ptr), value :: handle
      integer(c_int64_t) :: n
    end function c_multiple

    function c_scale(handle) bind(c, name="m2m_scale") result(n)
      import
      type(c_ptr), value :: handle
      integer(c_int64_t) :: n
    end function c_scale

    pure function c_fields(handle, side) bind(c, name="m2m_fields") result(n)
      import
      type(c_ptr), value :: handle
      integer(c_int), value :: side
      integer(c_int) :: n
    end function c_fields

    function c_name(handle, side, field) bind(c, name="m2m_name") result(text)
      import
      type(c_ptr), value :: handle
      integer(c_int), value :: side, field
      type(c_ptr) :: text
    end function c_name

    function c_channels(handle, side, field) bind(c, name="m2m_channels") result(n)
      import
      type(c_ptr), value :: handle
      integer(c_int), value :: side, field
      integer(c_int64_t) :: n
    end function c_channels

    function c_window(handle, crop, size, low, first) bind(c, name="m2m_window") result(bad)
      import
      type(c_ptr), value :: handle
      integer(c_int64_t), intent(in) :: crop(*)
      integer(c_int64_t), intent(out) :: size(*), low(*), first(*)
      integer(c_int) :: bad
    end function c_window

    function c_output(handle, size, after) bind(c, name="m2m_output") result(bad)
      import
      type(c_ptr), value :: handle
      integer(c_int64_t), intent(in) :: size(*)
      integer(c_int64_t), intent(out) :: after(*)
      integer(c_int) :: bad
    end function c_output

    function c_run(handle, batch, size, x, y) bind(c, name="m2m_run") result(bad)
      import
      type(c_ptr), value :: handle
      integer(c_int64_t), value :: batch
      integer(c_int64_t), intent(in) :: size(*)
      type(c_ptr), intent(in) :: x(*), y(*)
      integer(c_int) :: bad
    end function c_run

    function c_length(text) bind(c, name="strlen") result(n)
      import
      type(c_ptr), value :: text
      integer(c_size_t) :: n
    end function c_length
  end interface

contains

  !> Read what `m2m export --to onnx` has written.
  subroutine load(self, path, threads)
    class(emulator), intent(inout) :: self
    character(*), intent(in) :: path
    integer, intent(in), optional :: threads  !< of one run; 1 in a program with a process per core
    integer(c_int) :: many
    many = 0
    if (present(threads)) many = int(threads, c_int)
    self%handle = c_load(trim(path) // c_null_char, many)
    if (.not. c_associated(self%handle)) call stop_with("cannot load " // trim(path))
    self%ndim = c_ndim(self%handle)
    self%multiple = int(c_multiple(self%handle))
    self%scale = int(c_scale(self%handle))
  end subroutine load

  subroutine free(self)
    class(emulator), intent(inout) :: self
    call c_free(self%handle)
    self%handle = c_null_ptr
  end subroutine free

  !> Number of fields on a side, `inputs` or `outputs`.
  pure integer function fields(self, side)
    class(emulator), intent(in) :: self
    integer, intent(in) :: side
    fields = c_fields(self%handle, int(side, c_int))
  end function fields

  !> Name of a field, counted from 1.
  function name(self, side, field)
    class(emulator), intent(in) :: self
    integer, intent(in) :: side, field
    character(:), allocatable :: name
    name = text_at(c_name(self%handle, int(side, c_int), int(field - 1, c_int)))
  end function name

  !> Channels of a field, counted from 1.
  integer function channels(self, side, field)
    class(emulator), intent(in) :: self
    integer, intent(in) :: side, field
    channels = int(c_channels(self%handle, int(side, c_int), int(field - 1, c_int)))
  end function channels

  !> The card, JSON: fields with units, norms, training files.
  function card(self)
    class(emulator), intent(in) :: self
    character(:), allocatable :: card
    card = text_at(c_card(self%handle))
  end function card

  !> Which window to read for a crop: its size, how many of its cells lie below the crop, and which
  !> cell of the output, counted from 0, is the first of the crop.
  subroutine window(self, crop, size, low, first)
    class(emulator), intent(in) :: self
    integer, intent(in) :: crop(:)
    integer, intent(out) :: size(:), low(:), first(:)
    integer(c_int64_t), dimension(self%ndim) :: c_size, c_low, c_first
    if (c_window(self%handle, reversed(crop), c_size, c_low, c_first) /= 0) call stop_with("window")
    size = int(c_size(self%ndim:1:-1))
    low = int(c_low(self%ndim:1:-1))
    first = int(c_first(self%ndim:1:-1))
  end subroutine window

  !> Sizes of the output for a window of so many cells.
  function output(self, size)
    class(emulator), intent(in) :: self
    integer, intent(in) :: size(:)
    integer :: output(self%ndim)
    integer(c_int64_t) :: after(self%ndim)
    if (c_output(self%handle, reversed(size), after) /= 0) call stop_with("output")
    output = int(after(self%ndim:1:-1))
  end function output

  !> Run windows of so many cells; c_loc of an array for each field, in the order of `name`.
  subroutine run(self, size, x, y, batch)
    class(emulator), intent(in) :: self
    integer, intent(in) :: size(:)
    type(c_ptr), intent(in) :: x(:), y(:)
    integer, intent(in), optional :: batch
    integer(c_int64_t) :: many
    many = 1
    if (present(batch)) many = batch
    if (ubound(x, 1) /= self%fields(inputs) .or. ubound(y, 1) /= self%fields(outputs)) &
      error stop "emulator: give one array for each field"
    if (c_run(self%handle, many, reversed(size), x, y) /= 0) call stop_with("run")
  end subroutine run

  function reversed(sizes)
    integer, intent(in) :: sizes(:)
    integer(c_int64_t) :: reversed(size(sizes))
    reversed = int(sizes(size(sizes):1:-1), c_int64_t)
  end function reversed

  function text_at(address) result(text)
    type(c_ptr), intent(in) :: address
    character(:), allocatable :: text
    character(kind=c_char), pointer :: letters(:)
    integer :: i
    call c_f_pointer(address, letters, [c_length(address)])
    allocate (character(len=size(letters)) :: text)
    do i = 1, size(letters)
      text(i:i) = letters(i)
    end do
  end function text_at

  subroutine stop_with(what)
    character(*), intent(in) :: what
    write (error_unit, "(4a)") "emulator: ", what, ": ", text_at(c_error())
    error stop 1
  end subroutine stop_with

end module m2m_emulator
