/*
 * Design notes
 * - Apart from the commands, so that tests call rsi_cli_main in a child process of theirs.
 */
#include "clients/cli/cli.h"

int main(int argc, char **argv)
{
    return rsi_cli_main(argc, argv);
}
