"""Physics that norms, losses, metrics and simulators share: pure functions.

- `cosmology`: growth and linear power spectrum;
- `lagrangian`: cloud-in-cell between particles and grids;
- `perturbations`: Gaussian fields, displacements of first and second order;
- `potentials`: Newton's potential, and what general relativity adds to it;
- `matched_spectra`: fields without what their power spectra tell, or their phases;
- `spectra`: power, cross-correlation and transfer of periodic fields;
- `binned_power`: power of tensors that gradients flow through;
- `bispectra`: equilateral bispectra of periodic fields;
- `modes`: transforms in blocks, and their radial bins;
- `ice`: shallow-ice velocities and the conservation of mass;
- `ice_membrane`: velocities of ice whose columns hold and push each other;
- `glacier`: glaciers in time, from mass balance and flow;
- `bulk_fluxes`: stress and turbulent heat between air and sea, by COARE's formulae;
- `basin`: a sea with coasts and eddies, weather above it, fetch and waves;
- `darcy`: pressure and fluxes in a porous medium, by finite volumes;
- `flames`: the profile of a premixed flame, filters, and the surface that these hide;
- `level_set`: fronts that a flow carries and that burn on;
- `turbulence`: random velocities of a spectrum of turbulence, without divergence;
- `harmonics`: fields and winds on a sphere in spherical harmonics;
- `shallow_water`: shallow water on a rotating sphere, with tracers;
- `operators`: gradient, divergence and curl of periodic fields, differences in crops;
- `heating_rates`: of layers of air, from net fluxes;
- `air_columns`: levels, climate and random weather of columns of air;
- `gravity_waves`: drag of waves that rise and break in such columns;
- `two_stream`: reflection, transmission and emission of a layer;
- `radiation`: solar and thermal fluxes through broken clouds, with and without their sides;
- `air_contents`, `column_optics`, `cloudy_sky`: gases and clouds, what they do to radiation, and
  random columns of them;
- `spacing`: cell sizes, one for all axes or one each.
"""
