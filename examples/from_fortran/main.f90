!> Apply an emulator to a whole periodic box:
!>
!>   from_fortran EMULATOR.onnx NX NY NZ OUTPUT INPUT...
!>
!> INPUT are raw files of 4-byte reals, one for each field that the emulator takes, of shape
!> (NX, NY, NZ, channels) in Fortran's order. OUTPUT gets the fields that it gives, likewise.
program from_fortran
  use, intrinsic :: iso_c_binding
  use m2m_emulator, only: emulator, inputs, outputs
  implicit none

  type :: field
    real(c_float), pointer :: a(:, :, :, :) => null()
  end type field

  type(emulator) :: e
  type(field), allocatable :: x(:), y(:)
  real(c_float), allocatable :: box(:, :, :, :)
  integer :: n(3), read(3), low(3), first(3), after(3), last(3), i, unit

  if (command_argument_count() < 6) error stop "from_fortran EMULATOR NX NY NZ OUTPUT INPUT..."
  n = [(number(i), i = 2, 4)]
  call e%load(argument(1), threads=1)
  if (e%ndim /= 3) error stop "this program is for fields on three axes"
  if (command_argument_count() /= 5 + e%fields(inputs)) error stop "give one file for each input"
  call e%window(n, read, low, first)
  after = e%output(read)

  allocate (x(e%fields(inputs)), y(e%fields(outputs)))
  do i = 1, size(x)
    print "(3a, 3(i0, 1x), a, 3(i0, 1x))", "takes ", e%name(inputs, i), ", a window of ", read, &
      "around ", n
    allocate (box(n(1), n(2), n(3), e%channels(inputs, i)))
    open (newunit=unit, file=argument(5 + i), access="stream", form="unformatted", status="old")
    read (unit) box
    close (unit)
    allocate (x(i)%a(read(1), read(2), read(3), e%channels(inputs, i)))
    call wrap(box, x(i)%a)
    deallocate (box)
  end do
  do i = 1, size(y)
    allocate (y(i)%a(after(1), after(2), after(3), e%channels(outputs, i)))
  end do

  call e%run(read, [(c_loc(x(i)%a), i = 1, size(x))], [(c_loc(y(i)%a), i = 1, size(y))])

  last = first + e%scale * n
  open (newunit=unit, file=argument(5), access="stream", form="unformatted", status="replace")
  do i = 1, size(y)
    print "(2a)", "gives ", e%name(outputs, i)
    write (unit) y(i)%a(first(1) + 1:last(1), first(2) + 1:last(2), first(3) + 1:last(3), :)
  end do
  close (unit)
  call e%free()

contains

  !> The box with its halo, which is read from the opposite side; cell (1, 1, 1) of the box is behind
  !> `low` cells of halo.
  subroutine wrap(box, window)
    real(c_float), intent(in) :: box(:, :, :, :)
    real(c_float), intent(out) :: window(:, :, :, :)
    integer :: i, j, k
    do k = 1, size(window, 3)
      do j = 1, size(window, 2)
        do i = 1, size(window, 1)
          window(i, j, k, :) = box(around(i, 1), around(j, 2), around(k, 3), :)
        end do
      end do
    end do
  end subroutine wrap

  integer function around(cell, axis)
    integer, intent(in) :: cell, axis
    around = modulo(cell - low(axis) - 1, n(axis)) + 1
  end function around

  function argument(i)
    integer, intent(in) :: i
    character(:), allocatable :: argument
    integer :: length
    call get_command_argument(i, length=length)
    allocate (character(len=length) :: argument)
    call get_command_argument(i, argument)
  end function argument

  integer function number(i)
    integer, intent(in) :: i
    character(:), allocatable :: text
    text = argument(i)
    read (text, *) number
  end function number

end program from_fortran
